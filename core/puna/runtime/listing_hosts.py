"""Hosts that are asked for the models that their backends offer.

A host is started with the first question and stays for the later ones, since importing a plugin takes a second and
lists are asked for again and again. It is the shared host of the backend's models if they have one, and otherwise holds
no model. A host that fails is released, and the next question starts another.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from puna.backend import UpstreamModel
from puna.backend.v1 import backend_pb2 as wire
from puna.plugins import Plugin
from puna.runtime.host_connection import HostConnection, translating_errors

ASK_SECONDS: Final = 60.0
"""How long a backend may take to list its models."""
LONGEST_NAME: Final = 500
"""Characters of a model's name."""


Connect = Callable[[Plugin], Awaitable[HostConnection]]
"""Returns a connection to a host of a backend. Raises HostFailedError."""


class ListingHosts:
    """A host for each backend that lists models."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._hosts: dict[str, tuple[Plugin, HostConnection]] = {}

    async def models(self, plugin: Plugin, options: Mapping[str, object]) -> list[UpstreamModel]:
        """Return the models of a backend. One question at a time for each backend. Raises PunaError, BackendError."""
        known, host = self._hosts.pop(plugin.name, (None, None))
        if host is not None and (known != plugin or host.process.ended):
            await host.release()
            host = None
        # While it is asked, the host is in this function's hands only: whatever is raised releases it.
        host = host or await self._connect(plugin)
        try:
            found = await _models(host, options)
        except BaseException:
            await asyncio.shield(host.release())
            raise
        self._hosts[plugin.name] = plugin, host
        return found

    async def aclose(self) -> None:
        """Release all hosts."""
        hosts, self._hosts = list(self._hosts.values()), {}
        await asyncio.gather(*(host.release() for _, host in hosts), return_exceptions=True)


async def _models(host: HostConnection, options: Mapping[str, object]) -> list[UpstreamModel]:
    request = wire.ListModelsRequest(backend_options_json=json.dumps(options))
    async with translating_errors(host):
        answer = await host.stub.ListModels(request, timeout=ASK_SECONDS)
    return [
        UpstreamModel(name=each.name, capabilities=tuple(each.capabilities), context_length=each.context_length)
        for each in answer.models
        # A name is shown in terminals, so it must be one line.
        if 0 < len(each.name) <= LONGEST_NAME and each.name.isprintable()
    ]
