"""A node that another program has started for one core: its supervisor, such as an actor on a Ray cluster.

Theory. The supervisor sends one line of JSON to the node's standard input: the texts of its certificate, its own agent,
which is the process on this machine that reports the supervisor's state to the cluster, and the address of the
cluster's head. Then it holds the pipe open for as long as it lives.

A supervisor may be killed for itself: the cluster wants the machine's resources back, so the node ends. It also dies
with its agent, because the cluster's head or the agent itself was killed. Nothing then uses the node's resources, and
the core still reaches the node. So the node goes on until the core needs it no more.

A head that is gone ends the supervisor and the agent at different times, some seconds apart. So the node waits longer
for the agent's end while no head accepts connections. Otherwise clients of its host would wait for an error meanwhile.
"""

import asyncio
import json
import logging
import os
import select
import socket
import ssl
import threading
from contextlib import suppress
from typing import IO, Final

from puna.node.lease import LeaseHolder
from puna.process.cluster_tls import node_context_of

log = logging.getLogger(__name__)

AGENT_SECONDS: Final = 1.0
"""How much later than the supervisor its agent may end, if both die of one cause."""
HEADLESS_AGENT_SECONDS: Final = 5.0
"""The same if the cause is that the cluster's head is gone."""
HEAD_SECONDS: Final = 1.0
"""How long the head may take to accept a connection."""
UNCLAIMED_SECONDS: Final = 60.0
"""How long a node waits for its core."""


class Supervision:
    """The supervisor of a node, as the node knows it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        """`pipe` comes from the supervisor."""
        self._pipe = pipe
        self._agent: int | None = None
        self._head = ("", 0)

    def context(self) -> ssl.SSLContext:
        """Read the supervisor's line; return the context with the node's certificate. Blocks. Raises OSError."""
        try:
            told = json.loads(self._pipe.readline())
            files, agent = dict(told["certificate"]), int(told["agent"])
            host, _, port = str(told["head"]).rpartition(":")
            self._head = (host.strip("[]"), int(port))
        except (ValueError, TypeError, KeyError) as error:
            raise OSError(f"the supervisor has sent no certificate: {error!r}") from None
        with suppress(OSError):  # the agent has ended already
            self._agent = os.pidfd_open(agent)
        return node_context_of(files)

    async def ended(self) -> None:
        """Wait until the supervisor has ended while its agent lives."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()
        # A thread, since a pipe that asyncio reads must not block, and the supervisor's end shares that flag.
        threading.Thread(target=_read, args=(self._pipe, loop, closed), name="supervisor", daemon=True).start()
        await closed.wait()
        if not await asyncio.to_thread(self._agent_ends):
            log.warning("the supervisor has ended: this node ends")
            return
        log.warning("the supervisor and its agent have ended: this node goes on for its core")
        await asyncio.Event().wait()

    def _agent_ends(self) -> bool:
        """Return whether the agent has ended, or ends soon. Blocks."""
        if self._agent is None or _ends(self._agent, AGENT_SECONDS):
            return True
        return not self._head_accepts() and _ends(self._agent, HEADLESS_AGENT_SECONDS)

    def _head_accepts(self) -> bool:
        """Return whether the cluster's head accepts a connection. Blocks."""
        try:
            socket.create_connection(self._head, HEAD_SECONDS).close()
        except OSError:
            return False
        return True


def _ends(process: int, seconds: float) -> bool:
    """Return whether the process of this descriptor ends within `seconds`. Blocks."""
    return bool(select.select([process], [], [], seconds)[0])


def _read(pipe: IO[bytes], loop: asyncio.AbstractEventLoop, closed: asyncio.Event) -> None:
    with suppress(OSError, ValueError):
        while pipe.read(1):
            pass
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(closed.set)


async def unclaimed(lease: LeaseHolder, seconds: float = UNCLAIMED_SECONDS) -> None:
    """Return if no core takes the lease within `seconds`."""
    try:
        await asyncio.wait_for(lease.taken.wait(), seconds)
    except TimeoutError:
        log.warning("no core has taken the lease within %g s: this node ends", seconds)
        return
    await asyncio.Event().wait()
