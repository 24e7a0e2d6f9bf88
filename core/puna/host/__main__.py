"""`python -m puna.host`: serve on the socket that PUNA_HOST_SOCKET names until told to end, or the core is gone."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress

import grpc

from puna.backend.v1 import backend_pb2_grpc
from puna.host.channel import OPTIONS, READY, SOCKET_VARIABLE
from puna.host.servicer import BackendServicer
from puna.host.stream import address, streaming
from puna.plugins import Registry
from puna.process.lifeline import die_with_parent

CLOSING_SECONDS = 3.0
"""How long the model may take to free itself before the process ends regardless."""


def main() -> None:
    """Serve one model."""
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    die_with_parent()
    asyncio.run(serve(os.environ[SOCKET_VARIABLE]))


async def serve(path: str) -> None:
    """Serve on a Unix socket until SIGTERM, or until standard input closes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the core decides when a host ends
    threading.Thread(target=watch_parent, args=(loop, stop), name="parent", daemon=True).start()
    servicer = BackendServicer(Registry.discover())
    server = grpc.aio.server(options=OPTIONS)
    backend_pb2_grpc.add_BackendServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    async with streaming(address(path), servicer):
        say_ready()
        await stop.wait()
    await server.stop(grace=0)
    with suppress(TimeoutError):
        await asyncio.wait_for(servicer.aclose(), CLOSING_SECONDS)


def say_ready() -> None:
    """Tell the core, once. What native code prints to standard output from here on belongs to standard error."""
    os.write(1, f"{READY}\n".encode())
    os.dup2(2, 1)


def watch_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """End with the core: its end of our standard input closes however it dies. A thread sees it in a busy loop too."""
    while os.read(0, 1024):
        pass
    with suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(stop.set)
    time.sleep(CLOSING_SECONDS + 1)
    os._exit(1)


if __name__ == "__main__":
    main()
