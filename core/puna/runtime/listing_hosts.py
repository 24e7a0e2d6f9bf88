"""Hosts that are asked for the models that their backends offer.

A host is started with the first question and stays for the later ones, since importing a plugin takes a second and
lists are asked for again and again. It holds no model. One that fails is ended, and the next question starts another.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from puna.backend import UpstreamModel
from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc
from puna.errors import BackendFailedError
from puna.host.channel import OPTIONS
from puna.plugins import Plugin
from puna.runtime.host_process import HostProcess

ASK_SECONDS: Final = 60.0
"""How long a backend may take to list its models."""
LONGEST_NAME: Final = 500
"""Characters of a model's name."""


class ListingHost:
    """A host that lists models. `aclose` ends it."""

    def __init__(self, plugin: Plugin, stub: "backend_pb2_grpc.BackendServiceAsyncStub", exits: AsyncExitStack) -> None:
        self.plugin = plugin
        self._stub = stub
        self._exits = exits

    @classmethod
    async def start(cls, plugin: Plugin, socket: Path) -> "ListingHost":
        """Start a host that listens on `socket`. Raises LoadFailedError."""
        async with AsyncExitStack() as undo:
            process = await HostProcess.start(plugin, socket)
            undo.push_async_callback(process.stop)
            channel = grpc.aio.insecure_channel(f"unix:{socket}", options=OPTIONS)
            undo.push_async_callback(channel.close)
            stub: backend_pb2_grpc.BackendServiceAsyncStub = backend_pb2_grpc.BackendServiceStub(channel)
            return cls(plugin, stub, undo.pop_all())

    async def models(self, options: Mapping[str, object]) -> list[UpstreamModel]:
        """Ask for the models. Raises BackendFailedError."""
        request = wire.ListModelsRequest(backend_options_json=json.dumps(options))
        try:
            answer = await self._stub.ListModels(request, timeout=ASK_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise BackendFailedError(error.details() or error.code().name) from None
        return [
            UpstreamModel(name=each.name, capabilities=tuple(each.capabilities), context_length=each.context_length)
            for each in answer.models
            # A name is shown in terminals, so it must be one line.
            if 0 < len(each.name) <= LONGEST_NAME and each.name.isprintable()
        ]

    async def aclose(self) -> None:
        """End the process."""
        await self._exits.aclose()


class ListingHosts:
    """A host for each backend that lists models."""

    def __init__(self, socket: Callable[[], Path]) -> None:
        """`socket` returns a fresh path for a socket."""
        self._socket = socket
        self._hosts: dict[str, ListingHost] = {}

    async def models(self, plugin: Plugin, options: Mapping[str, object]) -> list[UpstreamModel]:
        """Return the models of a backend. One question at a time for each backend. Raises BackendFailedError."""
        host = self._hosts.pop(plugin.name, None)
        if host is not None and host.plugin != plugin:
            await host.aclose()
            host = None
        # While it is asked, the host is in this function's hands only: whatever is raised ends it.
        host = host or await ListingHost.start(plugin, self._socket())
        try:
            found = await host.models(options)
        except BaseException:
            await asyncio.shield(host.aclose())
            raise
        self._hosts[plugin.name] = host
        return found

    async def aclose(self) -> None:
        """End all hosts."""
        hosts, self._hosts = list(self._hosts.values()), {}
        await asyncio.gather(*(host.aclose() for host in hosts), return_exceptions=True)
