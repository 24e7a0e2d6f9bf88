"""What the machine offers: processor cores."""

import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_SMALL_MODEL = 32 * 1024 * 1024


def threads_for(model_bytes: int) -> int:
    """Return how many threads evaluate a model of this size best.

    A step of a small model is over before a second thread is of use; and on a busy machine the threads of llama.cpp
    spin while they wait for each other, which made answers of such models take seconds instead of milliseconds.
    """
    return 1 if model_bytes < _SMALL_MODEL else physical_cores()


def physical_cores() -> int:
    """Return how many cores this process may use, threads of one core counted once, as llama.cpp's programs count."""
    usable = _affinity()
    siblings = set()
    for cpu in usable:
        try:
            siblings.add((_CPUS / f"cpu{cpu}/topology/thread_siblings").read_text())
        except OSError:
            return max(len(usable), 1)
    return max(len(siblings), 1)


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
