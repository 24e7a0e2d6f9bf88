"""The last lines of the server's log, as records of Python's logging."""

import logging
from dataclasses import dataclass
from typing import Final

from puna.diagnostics.tail import Tail
from puna.request_log import RequestIdFilter, facts_json

LONGEST: Final = 8192
"""Characters of a text or of a traceback that are kept. Programs of others may log without a bound."""
OVERHEAD: Final = 256
"""Bytes that a line is charged beside its texts."""
_TRACEBACKS: Final = logging.Formatter()


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the log."""

    time_ns: int
    """In nanoseconds since 1970."""
    level: int
    """As in `logging`."""
    logger: str
    request_id: str
    """Ids of the request, such as "h3/r7"; empty if there is none."""
    message: str
    facts_json: str
    """The facts of the line as JSON text of an object; empty if it has none."""
    traceback: str

    def belongs_to(self, request_id: str) -> bool:
        """Return whether an id is among those of the line's request, or is all of them."""
        return f"/{request_id}/" in f"/{self.request_id}/"


class LogTail(logging.Handler):
    """Keeps the last lines of all loggers from its creation until `close`."""

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__()
        self.lines: Tail[LogLine] = Tail(most, most_bytes)
        self.addFilter(RequestIdFilter())
        logging.getLogger().addHandler(self)

    def close(self) -> None:
        """Keep no more lines."""
        logging.getLogger().removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        try:
            message = record.getMessage()
        # The handler that writes to standard error complains about the arguments.
        except (TypeError, ValueError):
            message = str(record.msg)
        line = LogLine(
            time_ns=int(record.created * 1e9),
            level=record.levelno,
            logger=record.name,
            request_id=getattr(record, "request_id", ""),
            message=_shortened(message),
            facts_json=facts_json(record),
            traceback=_shortened(_TRACEBACKS.formatException(record.exc_info)) if record.exc_info else "",
        )
        size = sum(map(len, (line.message, line.facts_json, line.traceback, line.logger, line.request_id)))
        self.lines.append(line, size + OVERHEAD)


def _shortened(text: str) -> str:
    # The end of a traceback tells more than its beginning, and a text is rarely that long.
    text = text if len(text) <= LONGEST else f"…{text[-LONGEST:]}"
    return text if text.isascii() else text.encode(errors="replace").decode()
