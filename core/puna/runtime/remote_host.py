"""A host on a node, as the core watches it: what the node tells of its life."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from puna.backend.v1 import node_pb2 as wire

log = logging.getLogger(__name__)

LONGEST_TEXT: Final = 2_000
"""Characters of a text of the node that are kept."""
LONGEST_OUTPUT: Final = 100_000
STATUS: Final = re.compile(r"exit \d{1,3}|SIG[A-Z0-9]{1,10}")
"""How a process may end. The text is a label of metrics, so a node does not choose it freely."""
STOP_SECONDS: Final = 12.0
"""How long a node may take to end a host. It kills a host that does not end by itself within 5 s."""


class RemoteHost:
    """A host on a node."""

    def __init__(self, address: str, label: str, stop: Callable[[bool], Awaitable[object]]) -> None:
        """`address` is the node's; `label` names the model in the log; `stop` tells the node to end the host.

        The argument of `stop` is whether to kill the host at once.
        """
        self._address = address
        self._label = label
        self._tell = stop
        self._process_id = 0
        self._killed = False
        self._status = "disconnected"
        self._explanation = "the connection to it broke"
        self._output = ""
        self._last_line = ""
        self._unreachable = False
        self._end = asyncio.Event()
        self._killing: asyncio.Task[None] | None = None
        self.on_output: Callable[[], None] = lambda: None
        """See RunningHost."""
        self.on_progress: Callable[[float], None] = lambda _: None
        """See RunningHost."""

    @property
    def pid(self) -> int:
        """0: the process runs on another machine."""
        return 0

    @property
    def node(self) -> str:
        """Address of the node."""
        return self._address

    @property
    def process_id(self) -> int:
        """The process id on the node; 0 until it has started."""
        return self._process_id

    @property
    def title(self) -> str:
        """The host in log lines."""
        return f"host {self._process_id} on {self._address}"

    @property
    def label(self) -> str:
        """The name of the model in the log."""
        return self._label

    @property
    def last_line(self) -> str:
        """The last line that the process wrote, as far as the node has told."""
        return self._last_line

    @property
    def status(self) -> str:
        """How the process ended."""
        return self._status

    @property
    def ended(self) -> bool:
        """Whether the process has ended, has been told to, or cannot be reached any more."""
        return self._killed or self._end.is_set()

    def started(self, process_id: int) -> None:
        """Note the process id on the node."""
        self._process_id = process_id

    def take(self, event: wire.StartHostResponse) -> None:
        """Note what the node tells."""
        if event.HasField("output"):
            self._last_line = event.output.last_line[:LONGEST_TEXT]
            self.on_output()
            if event.output.HasField("progress"):
                self.on_progress(event.output.progress)
        elif event.HasField("ended"):
            if STATUS.fullmatch(event.ended.status):
                self._status = event.ended.status
            self._output = event.ended.output[:LONGEST_OUTPUT]
            self._ended(f"{event.ended.explanation[:LONGEST_TEXT]} (on {self._address})", unreachable=False)

    def lose(self, reason: str) -> None:
        """Note that the host cannot be reached any more, unless it has ended before."""
        self._ended(reason, unreachable=True)

    def _ended(self, reason: str, *, unreachable: bool) -> None:
        if not self._end.is_set():
            self._explanation, self._unreachable = reason, unreachable
            self._end.set()

    @property
    def unreachable(self) -> bool:
        """Whether the node is gone."""
        return self._unreachable

    async def died(self, within: float) -> bool:
        """Wait up to `within` seconds for the process to end; return whether it has."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._end.wait(), within)
        return self._end.is_set()

    def explain(self) -> str:
        """Return why the process ended."""
        return self._explanation

    def kill(self) -> None:
        """Have the node kill the process."""
        self._killed = True
        if not self._end.is_set() and self._killing is None:
            self._killing = asyncio.create_task(self._stop(kill=True))

    async def stop(self) -> None:
        """Have the node end the process, and wait for that. Raises nothing."""
        if not self._end.is_set():
            await self._stop(kill=self._killed)
        if self._killing is not None:
            await self._killing

    def log_last_output(self) -> None:
        """Write the kept lines of output to the log."""
        log.error("%s: %s has ended: %s\n%s", self._label, self.title, self._explanation, self._output)

    async def _stop(self, *, kill: bool) -> None:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._tell(kill)
        except TimeoutError:
            log.error("%s: %s does not end", self._label, self.title)
