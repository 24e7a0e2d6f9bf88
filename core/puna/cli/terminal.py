"""The streams of a command: what a terminal can show, and what happens when output cannot be written.

Standard output may be a terminal, a file or a pipe, in any encoding. A character that the encoding lacks is written as
"?", and one note on standard error says so when the command ends. A pipe whose reader has gone ends the command without
a message, with the status that SIGPIPE gives other programs. Bars, spinners, colours and word wrap appear only on a
terminal that can move its cursor.
"""

import codecs
import contextlib
import errno
import io
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from puna.cli.early import status_of

if TYPE_CHECKING:
    from rich.console import Console

_NOWHERE: Final = Path(os.devnull)
_ERRORS: Final = "puna.replace"
_SIMILAR: Final = {"µ": "u"}
"""Characters of Puna's own output, and what stands for them where an encoding lacks them."""
_NOTE: Final = 'Note: characters that the encoding {} lacks are shown as "?"; LC_ALL=C.UTF-8 selects one that has them'


class _Replaced:
    """The characters that have been replaced."""

    encoding = ""
    """The encoding that lacked one; empty: none was replaced, or the note has been written."""
    noted = False


class OutputError(OSError):
    """Output cannot be written. The cause is the error of the system."""


class _Output(io.TextIOWrapper):
    """A standard stream whose errors differ from those of other files."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error


def prepare() -> None:
    """Make the standard streams usable, whatever state they are in. Must be called before anything is written."""
    # A stream whose descriptor is closed is None. /dev/null takes the number of the descriptor, which a socket would
    # take otherwise.
    if sys.stdin is None:
        sys.stdin = _NOWHERE.open(encoding="utf-8")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _NOWHERE.open("w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)
            # A stream that a caller of `main` has put in its place stays there.
            if stream is getattr(sys, f"__{name}__"):
                setattr(sys, name, _wrapped(stream))


def _wrapped(stream: io.TextIOWrapper) -> _Output:
    return _Output(
        stream.buffer,
        encoding=stream.encoding,
        errors=_ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def interactive(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can move its cursor and erase."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def colored(stream: TextIO) -> bool:
    """Return whether to write colours to a stream. NO_COLOR, if it is not empty, forbids them."""
    return interactive(stream) and not os.environ.get("NO_COLOR")


def can_show(text: str, stream: TextIO) -> bool:
    """Return whether the encoding of a stream has all characters of a text."""
    try:
        text.encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def shown(text: str, stream: TextIO) -> str:
    """Return a text as a stream will show it, with the replacements for characters that its encoding lacks."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, _ERRORS).decode(encoding)


def width() -> int:
    """Return the number of columns of the terminal, or of the variable COLUMNS; 80 without either."""
    return shutil.get_terminal_size().columns


def console(stream: TextIO) -> "Console":
    """Return a console of rich that writes to a stream."""
    # rich takes long to import, and most commands do without.
    from rich.console import Console

    # The terminal wraps long lines itself, so that a path can be copied.
    return Console(file=stream, highlight=False, soft_wrap=True)


def spinner(stream: TextIO) -> str:
    """Return the name of a spinner of rich whose characters a stream can show."""
    return "dots" if can_show("⠋", stream) else "line"


def note_replaced() -> None:
    """Write a note, once, if characters have been replaced."""
    if _Replaced.encoding and not _Replaced.noted:
        _Replaced.noted = True
        print(_NOTE.format(_Replaced.encoding), file=sys.stderr)


def flush() -> None:
    """Write what is buffered. Raises OutputError."""
    note_replaced()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def give_up(error: OutputError) -> int:
    """Drop the output that cannot be written. Return the exit status.

    A message is printed, unless the error is that the reader of a pipe has gone.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The interpreter would write the buffer once more when it ends, and print a traceback.
            with contextlib.suppress(OSError, ValueError), _NOWHERE.open("wb") as nothing:
                os.dup2(nothing.fileno(), stream.fileno())
    if error.errno == errno.EPIPE:
        return status_of(signal.SIGPIPE)
    with contextlib.suppress(OutputError):
        print(f"Error: the output cannot be written: {error.strerror}", file=sys.stderr, flush=True)
    return 1


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    found = "".join(_SIMILAR.get(each, "?") for each in missing)
    # An encoding of Unicode lacks only surrogates, and another encoding would not have them either.
    if "?" in found and not error.encoding.lower().startswith("utf"):
        _Replaced.encoding = error.encoding
    return found, error.end


codecs.register_error(_ERRORS, _replace)
