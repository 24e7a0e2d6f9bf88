"""The time slice of threads that compute, so that a thread that wakes up need not wait for one.

A model's threads compute and spin on every core. Linux lets a thread that wakes up interrupt them only if its turn ends
earlier by the scheduler's account, which with equal slices it mostly does not: an event loop that has a token to send
then waits for the next tick of the clock, four milliseconds on many systems. A thread with a longer slice is due later,
so the loop runs at once. Each thread keeps its share of the processor.
"""

import ctypes
import os
import platform
import sys
from typing import Final

SLICE_SECONDS: Final = 0.02
"""Several times the slice of other threads, and short enough that models which compete do not halt each other."""
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
"""The number of the system call. The C library has had a function for it since 2025 only."""
_SCHED_OTHER: Final = 0


class _Attributes(ctypes.Structure):
    """The first version of the kernel's struct sched_attr."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def lengthen_time_slice() -> bool:
    """Give the calling thread, and those that it starts, a long slice. Return whether the system took it.

    Linux has slices of their own for threads since version 6.12, and older ones ignore the number.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    # A process that runs under another policy, such as a real-time one, keeps it.
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != _SCHED_OTHER:
        return False
    attributes = _Attributes(
        size=ctypes.sizeof(_Attributes),
        policy=_SCHED_OTHER,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        runtime=int(SLICE_SECONDS * 1e9),
    )
    status: int = ctypes.CDLL(None).syscall(ctypes.c_long(number), 0, ctypes.byref(attributes), 0)
    return status == 0
