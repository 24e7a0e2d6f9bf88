"""Tries an environment before it becomes a plugin's, and for `puna plugin check`.

Each backend's manifest must be valid, its class must be importable by the environment's own interpreter, and its host
must start and answer Describe. All of that runs in other processes: a plugin that crashes or hangs is an error.
"""

import asyncio
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from puna.backend import CONTRACT_VERSION
from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc
from puna.errors import LoadFailedError
from puna.installer.errors import PluginInstallError
from puna.plugins import Plugin, Registry
from puna.process import child_environment, package_path
from puna.runtime import sockets
from puna.runtime.host_process import HostProcess, cause

DESCRIBE_SECONDS: Final = 20.0
IMPORT: Final = "import sys; from puna.host.loading import import_backend; import_backend(sys.argv[1])"
OUTPUT_LINES: Final = 20
"""Lines of a failed import's output that an error repeats."""


def verify(backends: Sequence[Plugin], seconds: float) -> None:
    """Try the backends of one environment. Raises PluginInstallError.

    `seconds`: how long each may take to be imported and to start; infinity: without limit.
    """
    beside = {each.name: each.distribution for each in Registry.discover().describe()}
    for each in backends:
        if each.name in beside:
            raise PluginInstallError(f"backend {each.name!r}: the name is taken by {beside[each.name]}")
    asyncio.run(_verify(backends, seconds))


async def _verify(backends: Sequence[Plugin], seconds: float) -> None:
    with sockets.folder() as paths:
        for backend in backends:
            if backend.error:
                raise PluginInstallError(f"backend {backend.name!r}: {backend.error}")
            socket = paths.next()
            if not backend.usable.host.command:
                await asyncio.to_thread(_import, backend, socket.parent, seconds)
            await _describe(backend, socket, seconds)


def _import(backend: Plugin, scratch: Path, seconds: float) -> None:
    """Import a backend's class as its host does when it loads a model."""
    venv = Path(backend.environment) / "venv"
    variables = child_environment.environment(names=backend.usable.host.environment)
    variables = package_path.environment(variables, venv, package_path.provide(scratch))
    command = [backend.command[0], "-P", "-c", IMPORT, backend.usable.host.python_class]
    try:
        done = subprocess.run(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=None if math.isinf(seconds) else seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PluginInstallError(
            f"backend {backend.name!r}: importing {command[-1]} takes longer than {seconds:g} s (OLLAMA_LOAD_TIMEOUT)"
        ) from error
    if done.returncode:
        output = "\n".join(done.stdout.rstrip().splitlines()[-OUTPUT_LINES:])
        text = f"backend {backend.name!r}: {command[-1]} cannot be imported ({cause(done.returncode)})"
        raise PluginInstallError(f"{text}:\n{output}" if output else text)


async def _describe(backend: Plugin, socket: Path, seconds: float) -> None:
    try:
        process = await HostProcess.start(backend, socket, seconds)
    except LoadFailedError as error:
        raise PluginInstallError(f"backend {backend.name!r}: its host does not start: {error}") from error
    try:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            stub: backend_pb2_grpc.BackendServiceAsyncStub = backend_pb2_grpc.BackendServiceStub(channel)
            request = wire.DescribeRequest(min_contract_version=1, max_contract_version=CONTRACT_VERSION)
            version = (await stub.Describe(request, timeout=DESCRIBE_SECONDS)).contract_version
    except grpc.aio.AioRpcError as error:
        # A host of version 1 need not have the method.
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            text = f"backend {backend.name!r}: its host does not describe itself: {error.details()}"
            raise PluginInstallError(text) from error
        version = 1
    finally:
        await process.stop()
    if not 1 <= version <= CONTRACT_VERSION:
        raise PluginInstallError(
            f"backend {backend.name!r}: its host speaks version {version} of the contract, this Puna {CONTRACT_VERSION}"
        )
