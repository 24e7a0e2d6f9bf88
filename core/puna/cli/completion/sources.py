"""The names that command lines are completed with: of models, backends, keys and other objects.

Most of them come from the server. A server that does not answer in time, or refuses, gives no names: a shell shows
nothing then, and the user goes on typing.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from puna.errors import PunaError
from puna.settings import Settings

if TYPE_CHECKING:
    import grpc.aio

INSTALLED: Final = "installed models"
LOADED: Final = "loaded models"
BACKENDS: Final = "backends"
FORMATS: Final = "formats"
REQUESTS: Final = "requests"
RECORDS: Final = "records"
KEYS: Final = "keys"
PLUGINS: Final = "plugins"
GRANTS: Final = "grants"
CAPABILITIES: Final = "capabilities"
QUANTIZATIONS: Final = "quantizations"
SECONDS: Final = 1.0
"""The time for an answer of the server. A user waits for the Tab key no longer than this."""
_PLAIN: Final = re.compile(r"[\w./:@+-]+")
"""Names without characters that mean something to a shell. Others are not offered."""
_LATEST: Final = ":latest"


def names(read_settings: Callable[[], Settings], source: str, current: str) -> list[str]:
    """Return the names of a source that may complete the word `current`; none if the source cannot be read.

    `read_settings` may raise OSError and ValueError, as a broken configuration file does.
    """
    try:
        settings = read_settings()
        found: Iterable[str]
        if source in _OF_SERVER:
            found = asyncio.run(asyncio.wait_for(_ask(settings, _OF_SERVER[source]), SECONDS))
        else:
            found = _OF_MACHINE[source](settings)
    except (PunaError, OSError, ValueError):
        return []
    # Types are written in either case.
    if source == QUANTIZATIONS and current.islower():
        return [each.lower() for each in found]
    # "llamita" stands for "llamita:latest", unless the user has begun to type a tag.
    whole = ":" in current
    return [each if whole else each.removesuffix(_LATEST) for each in found if _PLAIN.fullmatch(each)]


async def _ask(settings: Settings, question: "Callable[[grpc.aio.Channel], Awaitable[Iterable[str]]]") -> list[str]:
    # gRPC takes a tenth of a second to import, and most completions do without.
    from puna.cli.client import connected

    async with connected(settings) as channel:
        return list(await question(channel))


async def _installed(channel: "grpc.aio.Channel") -> Iterable[str]:
    from puna.paging import read_pages
    from puna_client.v1 import models_pb2, models_pb2_grpc

    stub = models_pb2_grpc.ModelsServiceStub(channel)
    return [each.name for each in (await read_pages(stub.ListModels, models_pb2.ListModelsRequest())).models]


async def _loaded(channel: "grpc.aio.Channel") -> Iterable[str]:
    from puna.paging import read_pages
    from puna_client.v1 import models_pb2, models_pb2_grpc

    stub = models_pb2_grpc.ModelsServiceStub(channel)
    answer = await read_pages(stub.ListLoadedModels, models_pb2.ListLoadedModelsRequest())
    return [each.model.name for each in answer.models]


async def _requests(channel: "grpc.aio.Channel") -> Iterable[str]:
    from puna.paging import read_pages
    from puna_client.v1 import server_pb2, server_pb2_grpc

    stub = server_pb2_grpc.ServerServiceStub(channel)
    return [each.id for each in (await read_pages(stub.ListRequests, server_pb2.ListRequestsRequest())).requests]


async def _records(channel: "grpc.aio.Channel") -> Iterable[str]:
    from puna_client.v1 import diagnostics_pb2, diagnostics_pb2_grpc

    # The newest ones, in one page: a server may keep many.
    stub = diagnostics_pb2_grpc.DiagnosticsServiceStub(channel)
    answer = await stub.ListRequestRecords(diagnostics_pb2.ListRequestRecordsRequest(page_size=100))
    return [each.request_id for each in answer.records]


async def _backends(channel: "grpc.aio.Channel") -> Iterable[str]:
    from puna_client.v1 import server_pb2, server_pb2_grpc

    answer = await server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(server_pb2.GetServerInfoRequest())
    return [each.name for each in answer.backends if not each.error]


async def _formats(channel: "grpc.aio.Channel") -> Iterable[str]:
    from puna_client.v1 import server_pb2, server_pb2_grpc

    answer = await server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(server_pb2.GetServerInfoRequest())
    return sorted({each for backend in answer.backends for each in backend.formats})


def _keys(settings: Settings) -> Iterable[str]:
    from puna.auth.keys import KeyFile

    return [each.id for each in KeyFile(settings.keys).listed() if not each.revoked]


def _plugins(settings: Settings) -> Iterable[str]:
    from puna.plugins.installed import links

    return [each.name for each in links(settings.plugins_folder)] if settings.plugins_folder else []


def _grants(_settings: Settings) -> Iterable[str]:
    from puna.auth.permissions import GRANTS as NAMES

    return list(NAMES)


def _capabilities(_settings: Settings) -> Iterable[str]:
    from puna import capabilities

    return [value for name, value in vars(capabilities).items() if name.isupper() and isinstance(value, str)]


def _quantizations(_settings: Settings) -> Iterable[str]:
    from puna.models.create import quantization

    return quantization.types()


_OF_SERVER: "Final[Mapping[str, Callable[[grpc.aio.Channel], Awaitable[Iterable[str]]]]]" = {
    INSTALLED: _installed,
    LOADED: _loaded,
    REQUESTS: _requests,
    RECORDS: _records,
    BACKENDS: _backends,
    FORMATS: _formats,
}
_OF_MACHINE: Final[Mapping[str, Callable[[Settings], Iterable[str]]]] = {
    KEYS: _keys,
    PLUGINS: _plugins,
    GRANTS: _grants,
    CAPABILITIES: _capabilities,
    QUANTIZATIONS: _quantizations,
}
