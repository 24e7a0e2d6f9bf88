import os
import pty
import sys
import termios
import time
from pathlib import Path

import pytest

from puna.cli import typed_ahead


@pytest.fixture
def terminal(monkeypatch):
    """A terminal as standard input; returns the end that the user types at."""
    keyboard, screen = pty.openpty()
    with os.fdopen(screen) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield keyboard
    os.close(keyboard)


def typed(terminal, text):
    os.write(terminal, text)
    time.sleep(0.05)  # the terminal hands it over


def test_lines_that_wait_and_the_start_of_the_next(terminal):
    typed(terminal, "first\nsecönd\nthi".encode())
    assert typed_ahead.lines() == (["first", "secönd"], "thi")
    assert typed_ahead.lines() == ([], "")


def test_an_enter_that_is_not_translated_ends_a_line(terminal):
    with typed_ahead.enter_is_enter():
        assert not termios.tcgetattr(sys.stdin)[0] & termios.ICRNL
        typed(terminal, b"one\rtwo\r")
        assert typed_ahead.lines() == (["one", "two"], "")


def test_the_terminal_is_left_as_it_was(terminal):
    before = termios.tcgetattr(sys.stdin)

    def fail():
        with typed_ahead.enter_is_enter():
            typed_ahead.lines()
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - any
        fail()
    assert termios.tcgetattr(sys.stdin) == before


def test_without_a_terminal_there_is_nothing(monkeypatch):
    with Path(os.devnull).open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with typed_ahead.enter_is_enter():
            assert typed_ahead.lines() == ([], "")
