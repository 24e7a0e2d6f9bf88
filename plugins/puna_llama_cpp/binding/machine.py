"""The machine's processor cores, and how many threads a model should use."""

import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_SMALL_MODEL = 32 * 1024 * 1024


def threads_for(model_bytes: int) -> int:
    """Return the number of threads that evaluates a model of this size fastest.

    A step of a small model ends before a second thread is of use. On a busy machine threads are also a risk: those of
    llama.cpp spin while they wait for each other, which made answers of such models take seconds instead of
    milliseconds.
    """
    return 1 if model_bytes < _SMALL_MODEL else physical_cores()


def physical_cores() -> int:
    """Return how many physical cores this process may use.

    Hyper-threads of one core count once, as in llama.cpp's programs.
    """
    usable = _affinity()
    siblings = set()
    for cpu in usable:
        try:
            # Hyper-threads of one core have equal lists of siblings, so the set counts cores.
            siblings.add((_CPUS / f"cpu{cpu}/topology/thread_siblings").read_text())
        except OSError:
            # Without this file, as on macOS, every CPU counts as a core.
            return max(len(usable), 1)
    return max(len(siblings), 1)


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
