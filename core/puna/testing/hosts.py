"""Models in host processes, as the server runs them, for the contract tests."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

import grpc

from puna.backend import CONTRACT_VERSION, LoadedModel, ModelSpec
from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc
from puna.host import convert
from puna.host.channel import OPTIONS
from puna.plugins import Plugin
from puna.runtime import sockets
from puna.runtime.heartbeat import HangTimeouts
from puna.runtime.host_loading import HostLoader
from puna.runtime.host_model import HostModel
from puna.runtime.host_process import HostProcess
from puna.runtime.launcher import Endpoint, HostRequirements, Launcher
from puna.runtime.local_launcher import LocalLauncher

STALL_SECONDS: Final = 60.0
"""How long a load in a test may give no sign of life."""
TIMEOUTS: Final = HangTimeouts(silence=30.0, step=60.0)
END_SECONDS: Final = 4.5
"""How long a host may take to end. The server kills it after five seconds."""

_STUBS: WeakKeyDictionary[LoadedModel, "backend_pb2_grpc.BackendServiceAsyncStub"] = WeakKeyDictionary()


make_launcher: Callable[[Callable[[], Path]], Launcher] = LocalLauncher
"""Makes what starts the hosts of tests, from a function that returns paths of sockets. A test of nodes replaces it."""


class _Noting:
    """A launcher that notes the last endpoint."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.address = ""
        self.machines = launcher.machines
        self.nodes, self.free_bytes, self.has_room = launcher.nodes, launcher.free_bytes, launcher.has_room
        self.aclose = launcher.aclose

    async def start(self, requirements: HostRequirements) -> Endpoint:
        endpoint = await self._launcher.start(requirements)
        self.address = endpoint.address
        return endpoint


@asynccontextmanager
async def hosted(
    plugin: Plugin, spec: ModelSpec, report: Callable[[float], None] = lambda _: None
) -> AsyncIterator[LoadedModel]:
    """Load a model in a host process, and end the process at the end."""
    with sockets.folder() as folder:
        launcher = _Noting(make_launcher(folder.next))
        model = await HostLoader(launcher).load(
            plugin,
            spec,
            report=report,
            stall_seconds=STALL_SECONDS,
            on_death=lambda: None,
            timeouts=TIMEOUTS,
        )
        try:
            async with grpc.aio.insecure_channel(launcher.address, options=OPTIONS) as channel:
                _STUBS[model] = backend_pb2_grpc.BackendServiceStub(channel)
                yield model
        finally:
            await model.aclose()
            await launcher.aclose()


@asynccontextmanager
async def hosted_together(plugin: Plugin, spec: ModelSpec) -> AsyncIterator[tuple[HostModel, HostModel]]:
    """Load a model twice, so that the two share its weights, and end their hosts at the end. Either may be closed."""
    with sockets.folder() as folder:
        launcher = make_launcher(folder.next)
        loader = HostLoader(launcher)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(launcher.aclose)
            models = []
            for _ in range(2):
                model = await loader.load(
                    plugin, spec, report=lambda _: None, stall_seconds=STALL_SECONDS, on_death=lambda: None
                )
                stack.push_async_callback(model.aclose)
                models.append(model)
            yield models[0], models[1]


async def step(model: LoadedModel) -> int | None:
    """Return the step number that the heartbeat of a model's host reports; None for a host without a heartbeat."""
    try:
        answer = await _STUBS[model].Heartbeat(wire.HeartbeatRequest())
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        return None
    return answer.step if answer.HasField("step") else None


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def bare_host(plugin: Plugin) -> AsyncIterator[tuple[HostProcess, "backend_pb2_grpc.BackendServiceAsyncStub"]]:
    """Start a host that has loaded nothing, and call it as the core does."""
    with sockets.folder() as folder:
        socket = folder.next()
        process = await HostProcess.start(plugin, socket)
        try:
            async with grpc.aio.insecure_channel(f"unix:{socket}", options=OPTIONS) as channel:
                yield process, backend_pb2_grpc.BackendServiceStub(channel)
        finally:
            await process.stop()


async def load_status(
    stub: "backend_pb2_grpc.BackendServiceAsyncStub", plugin: Plugin, spec: ModelSpec
) -> tuple[grpc.StatusCode, str]:
    """Load a model. Return the status with which the call ended, and its text."""
    facts = None
    try:
        async for response in stub.Load(convert.spec_to_wire(plugin.name, spec)):
            assert facts is None, "the message with `loaded` is the last one of Load"
            facts = response.loaded if response.HasField("loaded") else None
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    assert facts is not None, "Load ended without a message with `loaded`"
    return grpc.StatusCode.OK, ""


async def status(call: Awaitable[object]) -> grpc.StatusCode:
    """Return the status with which a call ends."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def check_protocol(plugin: Plugin, spec: ModelSpec) -> None:
    """Check what the wire contract demands of a host around its sequences: the handshake, refusals, and its end."""
    async with bare_host(plugin) as (process, stub):
        code = await status(stub.Describe(wire.DescribeRequest()))
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED), f"Describe ended with {code.name}"
        if code is grpc.StatusCode.OK:
            version = (await stub.Describe(wire.DescribeRequest())).contract_version
            assert version == CONTRACT_VERSION, f"the host speaks version {version} of the contract"
        code = await status(stub.Tokenize(wire.TokenizeRequest(text="a")))
        assert code is not grpc.StatusCode.OK, "a call before Load must fail"
        assert code is not grpc.StatusCode.UNAVAILABLE, "a call before Load ended the host"
        code, text = await load_status(stub, plugin, spec)
        assert code is grpc.StatusCode.OK, f"Load failed: {text}"
        if plugin.manifest is not None and not plugin.manifest.host.shared:
            code, _ = await load_status(stub, plugin, spec)
            assert code is not grpc.StatusCode.OK, "a second Load must fail with FAILED_PRECONDITION"
        await check_end(process, signal.SIGTERM)


async def check_end(process: HostProcess, number: signal.Signals) -> None:
    """Check that a signal ends a host, before the server would kill it."""
    os.kill(process.pid, number)
    assert await process.died(within=END_SECONDS), f"it did not end after {number.name}"
