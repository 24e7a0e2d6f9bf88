"""Memory for copies of states that the kernel does not zero any more, so that a copy takes as long as its bytes alone.

The kernel zeroes memory when it is first touched. For a state that takes five to twenty times as long as the copy, and
streams would wait for it. So a thread beside them touches the memory before it is needed, and gives back what it has
written.
"""

import ctypes
from collections.abc import Callable
from typing import Final

import numpy as np

from puna_llama_cpp.kv_store.file_format import State

MAX_BYTES: Final = 512 << 20
"""Bytes of all buffers together. A state that needs more is not copied while streams wait."""
_BUFFERS: Final = 2
"""Copies for which memory is kept: one may be written while the next one is made."""
_TOUCHED_BYTES: Final = 4 << 20
"""Bytes that are touched at once."""


class StateBuffers:
    """The buffers of one model. The caller's lock guards all methods."""

    def __init__(self) -> None:
        """Start without buffers."""
        self._free: list[State] = []
        self.size = 0
        """Bytes of each buffer: those of the largest copy that is expected, rounded up; 0: none is expected."""

    def expect(self, size: int) -> bool:
        """Note that a copy of this size may be needed. Return whether larger buffers are needed for it."""
        if not self.size < size <= MAX_BYTES:
            return False
        # Somewhat more, since the next chat is seldom of the same length.
        unit = 1 << max(size.bit_length() - 4, 0)
        self.size = min(-(-size // unit) * unit, MAX_BYTES)
        self._free.clear()
        return True

    @property
    def lacking(self) -> bool:
        """True if there are fewer buffers than should be kept."""
        return self.size > 0 and len(self._free) < min(_BUFFERS, MAX_BYTES // self.size)

    def take(self) -> State | None:
        """Return a buffer, which the caller owns then; None if there is none."""
        return self._free.pop() if self._free else None

    def give(self, buffer: State) -> None:
        """Keep a buffer, if it is needed and large enough."""
        if self.lacking and self.size <= len(buffer) <= MAX_BYTES:
            self._free.append(buffer)

    def clear(self) -> None:
        """Free everything, and expect nothing."""
        self.size = 0
        self._free.clear()


def touched(size: int, proceed: Callable[[], bool]) -> State | None:
    """Return memory that has been touched; None if there is none, or if `proceed`, called now and then, is false."""
    try:
        buffer = np.empty(size, np.uint8)
    except MemoryError:
        return None
    for start in range(0, size, _TOUCHED_BYTES):
        if not proceed():
            return None
        part = buffer[start : start + _TOUCHED_BYTES]
        ctypes.memset(part.ctypes.data, 0, len(part))  # it frees Python's lock meanwhile
    return buffer
