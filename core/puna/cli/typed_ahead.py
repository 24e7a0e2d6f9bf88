"""Lines that are typed before the prompt of `run` appears.

By default the terminal translates Enter to a newline. The prompt treats a newline as a key that adds a line to the
message. So the translation is switched off early, and lines that were typed before are read here and answered first.
"""

import os
import select
import sys
from collections.abc import Generator
from contextlib import contextmanager

LARGEST = 1 << 20


@contextmanager
def enter_is_enter() -> Generator[None]:
    """Switch the translation of Enter off until the block ends."""
    if not sys.stdin.isatty():
        yield
        return
    import termios  # not on every platform

    before = termios.tcgetattr(sys.stdin)
    now = list(before)
    now[0] = before[0] & ~termios.ICRNL
    # TCSADRAIN and not TCSAFLUSH, which would throw away what has been typed.
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, now)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def lines() -> tuple[list[str], str]:
    """Return the complete lines that wait in the terminal, and the start of the next one."""
    if not sys.stdin.isatty():
        return [], ""
    import termios  # not on every platform

    before = termios.tcgetattr(sys.stdin)
    now = list(before)
    now[3] = before[3] & ~termios.ICANON  # an incomplete line can be read in this mode only
    # A copy, since `before` must stay as it was. VMIN and VTIME of 0 make a read return what there is.
    now[6] = [*before[6]]
    now[6][termios.VMIN], now[6][termios.VTIME] = 0, 0
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, now)
    try:
        typed = b""
        # Bounded, since standard input may be a terminal that a program fills without end.
        while len(typed) < LARGEST and select.select([sys.stdin], [], [], 0)[0]:
            part = os.read(sys.stdin.fileno(), 1 << 16)
            if not part:
                break
            typed += part
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
    # Enter arrives as CR while its translation is off, and as LF if it was pressed before.
    *whole, last = typed.decode(errors="replace").replace("\r", "\n").split("\n")
    return whole, last
