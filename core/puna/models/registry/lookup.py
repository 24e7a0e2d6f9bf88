"""Looking names up in threads of their own.

The owner of a name decides how long a look-up takes: half a minute, if its servers do not answer. In the threads that
asyncio shares out, a few of them would keep every other request from the disk. These threads are daemons, so none keeps
the server from ending.
"""

import asyncio
import contextlib
import socket
import threading
from typing import Final

AT_ONCE: Final = 16
"""Look-ups at the same time. Further ones wait."""
_NUMERIC: Final = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
_places: Final = threading.BoundedSemaphore(AT_ONCE)


async def addresses(host: str, port: int, family: int = socket.AF_UNSPEC) -> list[tuple[int, str]]:
    """Return families and addresses of a name. Raises OSError.

    When the call is cancelled, the look-up goes on in its thread and its result is dropped.
    """
    while not _places.acquire(blocking=False):  # noqa: ASYNC110
        await asyncio.sleep(0.05)  # threads release the semaphore, so it is not one of asyncio
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[tuple[int, str]]] = loop.create_future()

    def tell(found: list[tuple[int, str]], error: Exception | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def look() -> None:
        found: list[tuple[int, str]] = []
        error: Exception | None = None
        try:
            # AI_ADDRCONFIG: no IPv6 addresses on a machine without IPv6, which would each cost a failed connection.
            infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            found = [(int(info[0]), str(socket.getnameinfo(info[4], _NUMERIC)[0])) for info in infos]
        except (OSError, UnicodeError) as failed:
            error = failed if isinstance(failed, OSError) else socket.gaierror(socket.EAI_NONAME, str(failed))
        finally:
            _places.release()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, found, error)

    threading.Thread(target=look, name="lookup", daemon=True).start()
    return await answer
