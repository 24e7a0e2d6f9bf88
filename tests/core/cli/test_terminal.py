import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from puna.cli import terminal

ASCII = SimpleNamespace(encoding="ascii")
TERMINAL = SimpleNamespace(isatty=lambda: True)
PIPE = SimpleNamespace(isatty=lambda: False)
START = "import sys; from puna.cli import terminal; terminal.prepare(); "


def ended(code, encoding):
    """Run code in a process of its own, whose streams are those of a program."""
    return subprocess.run(
        [sys.executable, "-c", START + code],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("stream", "term", "no_color", "moves", "colors"),
    [
        (TERMINAL, "xterm", "", True, True),
        (TERMINAL, "xterm", "1", True, False),
        (TERMINAL, "dumb", "", False, False),
        (TERMINAL, "", "", False, False),
        (PIPE, "xterm", "", False, False),
    ],
)
def test_what_a_terminal_can_do(stream, term, no_color, moves, colors, monkeypatch):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    assert (terminal.interactive(stream), terminal.colored(stream)) == (moves, colors)


def test_characters_that_an_encoding_lacks():
    assert terminal.can_show("é", sys.stdout)
    assert not terminal.can_show("é", ASCII)
    assert terminal.shown("1 µs, café ✓", ASCII) == "1 us, caf? ?"
    assert terminal.spinner(ASCII) != terminal.spinner(SimpleNamespace(encoding="utf-8"))


def test_a_note_says_once_that_characters_were_replaced():
    done = ended("print('caf\\u00e9 \\u2713'); terminal.flush(); terminal.flush()", "latin-1")
    assert done.stdout == b"caf\xe9 ?\n"
    assert done.stderr.decode().splitlines() == [
        'Note: characters that the encoding latin-1 lacks are shown as "?"; LC_ALL=C.UTF-8 selects one that has them'
    ]
    # No encoding has lone surrogates.
    done = ended("print('\\ud800'); terminal.flush()", "utf-8")
    assert (done.stdout, done.stderr) == (b"?\n", b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_no_error_of_another_file(unbuffered):
    code = """
try:
    print("text"); terminal.flush()
except terminal.OutputError as error:
    sys.exit(terminal.give_up(error))
"""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", START + code],
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"Error: the output cannot be written: No space left on device\n"


def test_closed_streams_take_no_descriptor_of_a_socket():
    code = (
        "import os; print('lost'); sys.stdin.read(); open_ = [os.path.exists(f'/proc/self/fd/{n}') for n in range(3)]"
    )
    code += "; print(open_, file=sys.stderr)"
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" <&- >&-', sys.executable, "-c", START + code],
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"[True, True, True]\n")


def test_a_stream_that_a_caller_has_put_in_place_stays(monkeypatch):
    own = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", own)
    terminal.prepare()
    assert sys.stdout is own
    sys.stdout.write("✓\n")
    own.flush()
    assert own.buffer.getvalue() == b"?\n"
