"""Request ids in log lines.

Every request gets an id where it enters the server, and every line that is logged on its behalf begins with it:

    2026-11-28 17:00:00,000 DEBUG puna.requests: [h3/r7] StreamChat 'llamita' ends after 0.412 s

An id that begins with h is that of an HTTP request, one that begins with r that of a gRPC call. ListRequests and
CancelRequests of ServerService use the latter. A bridge that runs beside the core calls it within the HTTP request, so
both ids stand in the line; a bridge of its own (`puna rest`) logs h ids alone, and its core r ids alone.

A client may choose the id of its call (`x-request-id`); then this id takes the place of the r id.

The id is kept in a context variable. A task inherits the id of the task that created it, so a task that outlives the
request, or works for several, must be created with another context: see `without_request`.
"""

import contextvars
import itertools
import json
import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

log = logging.getLogger("puna.requests")

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(request)s%(message)s"
"""Format of a log line; `RequestIdFilter` supplies `request`."""
FORMS: Final = ("text", "json")
LONGEST_NAME: Final = 100
"""Characters of a model's name in a log line, since clients choose the name."""

_JSON: Final = json.JSONEncoder()
_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
_http_numbers: Final = itertools.count(1)
_call_numbers: Final = itertools.count(1)
_http_route: contextvars.ContextVar[str] = contextvars.ContextVar("http_route", default="")
_call_id: contextvars.ContextVar[str] = contextvars.ContextVar("call_id", default="")
LONGEST_ID: Final = 128
"""Characters of an id that a client chooses."""


class RequestIdFilter(logging.Filter):
    """Adds the attribute `request` to log records: the id in brackets and a space, or nothing outside a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attribute; always true, so that no record is dropped."""
        current = record.request_id = _request_id.get()
        record.request = f"[{current}] " if current else ""
        return True


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time, level, logger, request, message, and the facts of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "request": getattr(record, "request_id", ""),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        text, facts = _JSON.encode({name: value for name, value in line.items() if value}), facts_json(record)
        return f"{text[:-1]}, {facts[1:]}" if facts else text


def facts_json(record: logging.LogRecord) -> str:
    """Return the facts of a record as JSON text of an object without empty values; empty if it has none.

    A line with facts is both written and kept for later readers, so the record keeps the text.
    """
    found: str | None = getattr(record, "facts_json", None)
    if found is None:
        facts: Mapping[str, object] = getattr(record, "facts", {})
        given = {name: value for name, value in facts.items() if value != ""}
        found = record.facts_json = _JSON.encode(given) if given else ""
    return found


def configure(level: int, form: str = "text") -> None:
    """Have this process log to standard error, with request ids. `form` is in FORMS."""
    # No format here shows them, and each line would cost the time to find them out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level, format=FORMAT)
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
    # On the handlers and not on the root logger, whose filters do not see the records of other loggers.
    for handler in logging.getLogger().handlers:
        handler.addFilter(RequestIdFilter())


def choose_call_id(given: str) -> str:
    """Choose and return the id of the current task's call: the client's if it is printable ASCII, else a new one."""
    chosen = given if 0 < len(given) <= LONGEST_ID and given.isascii() and given.isprintable() else new_call_id()
    _call_id.set(chosen)
    return chosen


def new_call_id() -> str:
    """Return an id that no call of this process has."""
    return f"r{next(_call_numbers)}"


def call_id() -> str:
    """Return the id that was chosen for the current task's call; empty if none was."""
    return _call_id.get()


def http_route() -> str:
    """Return the HTTP method and the route of the current task's request; empty if it did not come over HTTP."""
    return _http_route.get()


@contextmanager
def http_request(method: str, route: str) -> Generator[Callable[[int], None]]:
    """Give the current task's HTTP request an id, and log its end with the status that the block passes on.

    `route` is the route's own pattern: a path as sent could hold anything.
    """
    what = f"{method} {route}"
    token = _http_route.set(what)
    try:
        with _logged(f"h{next(_http_numbers)}", what) as end:
            yield lambda status: end(f" with status {status}")
    finally:
        _http_route.reset(token)


@contextmanager
def grpc_call(call_id: str, method: str, model: str) -> Generator[None]:
    """Give the current task's gRPC call an id, and log its beginning and end."""
    with _logged(call_id, f"{method} {model[:LONGEST_NAME]!r}" if model else method):
        yield


@contextmanager
def _logged(request_id: str, what: str) -> Generator[Callable[[str], None]]:
    outer = _request_id.get()
    # Within one process, the call of the bridge inherits the id of its HTTP request.
    token = _request_id.set(f"{outer}/{request_id}" if outer else request_id)
    details: list[str] = []
    began = time.monotonic()
    log.debug("%s begins", what)
    outcome = "ends"
    try:
        yield details.append
    except BaseException as error:
        outcome = f"ends by {type(error).__name__}"
        raise
    finally:
        log.debug("%s %s after %.3f s%s", what, outcome, time.monotonic() - began, "".join(details))
        _request_id.reset(token)


def without_request() -> contextvars.Context:
    """Return a context for a task that outlives the current request: `create_task(..., context=without_request())`."""
    # A copy with an empty id, so that other variables of the context stay.
    context = contextvars.copy_context()
    context.run(_request_id.set, "")
    return context
