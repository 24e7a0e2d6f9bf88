"""All that DiagnosticsService shows, in one object."""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager, closing

from puna.diagnostics import redaction
from puna.diagnostics.content import Policy
from puna.diagnostics.log_lines import LogTail
from puna.diagnostics.records import RequestRecords
from puna.diagnostics.server_events import ServerEvents
from puna.limits import DEFAULT_LIMITS, Limits
from puna.serving.activity import Entry
from puna.settings import Settings


def policy(settings: Settings) -> Policy | None:
    """Return what records of requests keep by the settings; None: the server keeps none.

    OSError: the patterns cannot be used. Blocks.
    """
    if not settings.records:
        return None
    return Policy(
        prompts=settings.records_content in ("all", "prompts"),
        answers=settings.records_content in ("all", "answers"),
        redaction=redaction.read(settings.records_redaction),
        max_bytes=settings.limits.max_record_bytes,
    )


class Diagnostics:
    """The recent past of the server. It keeps nothing before `keeping` is entered."""

    def __init__(self, found: Policy | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        """`found` says what records of requests keep; None: there are none."""
        self._policy = found
        self._limits = limits
        self.requests: RequestRecords | None = None
        """The records of requests; None if the server keeps none."""
        self.log: LogTail | None = None
        """The last lines of the log; None outside of `keeping`, as below."""
        self.events: ServerEvents | None = None
        """The last events of the server."""

    @asynccontextmanager
    async def keeping(self, entries: Callable[[], Iterable[Entry]]) -> AsyncGenerator[None]:
        """Keep what happens as long as the block lasts. `entries` returns the requests under way."""
        limits = self._limits
        with ExitStack() as stack:
            self.log = stack.enter_context(closing(LogTail(limits.max_log_lines, limits.max_log_bytes)))
            self.events = stack.enter_context(
                closing(ServerEvents(limits.max_server_events, limits.max_server_event_bytes))
            )
            if self._policy is not None:
                records = RequestRecords(
                    entries, self._policy, most=limits.max_records, most_bytes=limits.max_records_bytes
                )
                self.requests = stack.enter_context(closing(records))
            try:
                yield
            finally:
                self.requests = self.log = self.events = None
