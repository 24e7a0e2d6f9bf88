"""Describes an exception for the log without its text, which may quote a prompt.

The exception may come from a plugin: its traceback may have thousands of frames, its causes may be without end, and
its attributes may raise.
"""

import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

MAX_FRAMES: Final = 24
"""Frames of one traceback that are shown: those where the exception was raised."""
MAX_EXCEPTIONS: Final = 5
"""Exceptions that are shown: the exception itself, its causes, and the members of its groups."""
MAX_LINE: Final = 300
"""Characters of one line."""
CAUSE: Final = "caused by"
CONTEXT: Final = "raised while handling"
MEMBER: Final = "a member of the group:"


def summarize(error: BaseException) -> str:
    """Return the exception's class and the frames of its traceback, one per line, then those of its causes."""
    return "\n".join(line[:MAX_LINE] for line in _lines(error))


def _lines(error: BaseException) -> Iterator[str]:
    pending, seen = [("", error)], set[int]()
    while pending:
        relation, current = pending.pop(0)
        # An exception may be its own cause, by way of others.
        if id(current) in seen:
            continue
        if len(seen) == MAX_EXCEPTIONS:
            yield "further exceptions are left out"
            return
        seen.add(id(current))
        yield f"{relation} {type(current).__qualname__}".lstrip()
        yield from _frames(_attribute("__traceback__", current))
        if (cause := _attribute("__cause__", current)) is not None:
            pending.append((CAUSE, cause))
        elif not current.__suppress_context__ and (context := _attribute("__context__", current)) is not None:
            pending.append((CONTEXT, context))
        if isinstance(current, BaseExceptionGroup):
            pending += [(MEMBER, member) for member in vars(BaseExceptionGroup)["exceptions"].__get__(current)]


def _attribute(name: str, error: BaseException) -> Any:  # noqa: ANN401
    """Return an attribute as BaseException defines it, since a subclass may replace it by code of its own."""
    return vars(BaseException)[name].__get__(error)


def _frames(tb: TracebackType | None) -> Iterator[str]:
    # Summaries show lines of source code, never values. The exception's own text is left out.
    for entry in traceback.extract_tb(tb, limit=-MAX_FRAMES).format():
        yield from entry.rstrip().splitlines()
