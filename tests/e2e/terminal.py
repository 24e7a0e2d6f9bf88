"""A program in a terminal of its own: what it shows, and keys that are pressed there."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78])|\r")
WHERE = "\x1b[6n"
"""What programs ask a terminal that wants to know where its cursor is."""
TAKE_OVER = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A program that makes its input its terminal, then becomes another. Nothing runs between fork and exec, where gRPC's
handlers abort a process whose other threads are in gRPC."""
CTRL_C, CTRL_D, UP, ENTER = "\x03", "\x04", "\x1b[A", "\r"


class Terminal:
    """A running program with a terminal."""

    def __init__(self, process, master):
        self.process = process
        self.master = master
        self.shown = ""
        """Everything that came since the last `expect`, without its colours and movements."""
        self.raw = ""
        """Everything that came, with its colours and movements."""

    def press(self, keys):
        os.write(self.master, keys.encode())

    def enter(self, text):
        self.press(text + ENTER)

    def _read(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            raw = os.read(self.master, 1 << 16).decode(errors="replace")
        except OSError:  # what a terminal says whose program has ended
            return False
        for _ in range(raw.count(WHERE)):
            self.press("\x1b[1;1R")
        self.raw += raw
        self.shown += SEQUENCE.sub("", raw)
        return True

    def expect(self, pattern, seconds=30.0):
        """Wait until something is shown; forget all up to there, and return the match."""
        deadline = time.monotonic() + seconds
        while (match := re.search(pattern, self.shown)) is None:
            if time.monotonic() > deadline or (not self._read(0.1) and self.process.poll() is not None):
                pytest.fail(f"{pattern!r} was not shown, but {self.shown!r}")
        self.shown = self.shown[match.end() :]
        return match

    def ended(self, seconds=30.0):
        """Wait for the end; return the exit status."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.1)
        return self.process.wait(1)


@contextlib.contextmanager
def terminal(command, columns=100, **environment):
    """Start a program in a new terminal; it is killed at the end if it still runs."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))

    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_OVER, *command],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm-256color"} | environment,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)
