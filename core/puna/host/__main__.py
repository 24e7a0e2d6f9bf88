"""`python -m puna.host MODULE:CLASS`: the host process of one model of a Python backend.

The core takes the class from the backend's manifest. It is imported when the model is loaded.

It serves on the socket that PUNA_HOST_SOCKET names until SIGTERM, or until the core is gone. The core may die in any
way: the kernel's parent-death signal covers that on Linux, and everywhere the end of standard input does, which a
thread waits for so that a busy event loop does not delay it.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import grpc

from puna.backend.v1 import backend_pb2_grpc
from puna.host.channel import OPTIONS, READY, SOCKET_VARIABLE
from puna.host.loading import import_backend
from puna.host.report import keep_stderr, report_error
from puna.host.servicer import BackendServicer
from puna.host.stream import CLOSING_SECONDS, address, streaming
from puna.process.lifeline import die_with_parent


def main() -> None:
    """Serve one model."""
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    # As early as possible. A core that died before this call is noticed by the end of standard input.
    die_with_parent()
    keep_stderr()
    threading.excepthook = thread_failed
    asyncio.run(serve(os.environ[SOCKET_VARIABLE], sys.argv[1]))


async def serve(path: str, python_class: str) -> None:
    """Serve a Backend class on a Unix socket until SIGTERM, or until standard input closes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(task_failed)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the core decides when a host ends; Ctrl-C is for the core
    threading.Thread(target=watch_parent, args=(loop, stop), name="parent", daemon=True).start()
    servicer = BackendServicer(lambda: import_backend(python_class))
    server = grpc.aio.server(options=OPTIONS)
    backend_pb2_grpc.add_BackendServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    # The gRPC server listens first, and the ready line comes when both sockets do, so the core never connects too
    # early.
    async with streaming(address(path), servicer):
        say_ready()
        await stop.wait()
    # The core closes its streams before it sends SIGTERM, so calls that are left are not waited for.
    await server.stop(grace=0)
    closing = asyncio.create_task(servicer.aclose())
    if not (await asyncio.wait({closing}, timeout=CLOSING_SECONDS))[0]:
        # Not an ordinary exit, which would wait for the plugin's tasks and threads.
        os._exit(1)


def task_failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report the exception of a task or a callback of the plugin that nothing waits for."""
    if isinstance(error := context.get("exception"), BaseException):
        report_error("the backend failed in the background", error)
    else:
        loop.default_exception_handler(context)


def thread_failed(args: threading.ExceptHookArgs) -> None:
    """Report the exception that ended a thread of the plugin."""
    if args.exc_value is not None and args.exc_type is not SystemExit:
        report_error("the backend failed in a thread", args.exc_value)


def say_ready() -> None:
    """Write the ready line. Standard output is then redirected to standard error, for native code prints to either."""
    os.write(1, f"{READY}\n".encode())
    os.dup2(2, 1)


def watch_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Wait for the end of standard input, which closes when the core ends, and end the process."""
    while os.read(0, 1024):
        pass
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(stop.set)
    # An event loop that hangs in native code never sees `stop`, so this thread ends the process without it.
    time.sleep(CLOSING_SECONDS + 1)
    os._exit(1)


if __name__ == "__main__":
    main()
