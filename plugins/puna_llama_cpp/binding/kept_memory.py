"""Memory that is used again and again, and that the system may have in between.

The system zeroes each page of fresh memory when it is first written, which takes five to twenty times as long as a copy
of the page. So the memory of a copy is kept. Huge pages make its first use about twice as fast, and MADV_FREE
lets the system take the pages when it lacks memory.
"""

import mmap
import sys

import numpy as np
from numpy.typing import NDArray


class KeptMemory:
    """Bytes for one purpose at a time."""

    def __init__(self) -> None:
        """Start without memory."""
        self._memory: mmap.mmap | None = None
        self._bytes = np.empty(0, np.uint8)

    def take(self, size: int) -> NDArray[np.uint8]:
        """Return at least so many bytes, the same ones as before if they suffice. Their content is arbitrary."""
        if len(self._bytes) < size:
            # Memory takes no room before it is used. So a chat that grows meets few fresh pages.
            size *= 2
            if sys.platform == "linux":
                self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                self._advise(mmap.MADV_HUGEPAGE)
                self._bytes = np.frombuffer(self._memory, np.uint8)
            else:
                self._bytes = np.empty(size, np.uint8)
        return self._bytes

    def release(self) -> None:
        """Let the system have the memory. What `take` returned loses its content."""
        if not self._memory or not self._advise(mmap.MADV_FREE):
            self._memory, self._bytes = None, np.empty(0, np.uint8)

    def _advise(self, advice: int) -> bool:
        assert self._memory is not None
        try:
            self._memory.madvise(advice)
        except OSError:  # a kernel without this advice
            return False
        return True
