import ctypes
import os
import platform
import threading

from puna_llama_cpp.binding import time_slice
from puna_llama_cpp.binding.time_slice import SLICE_SECONDS, lengthen_time_slice

SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}[platform.machine()]
HAS_SLICES = tuple(map(int, platform.release().split("-")[0].split(".")[:2])) >= (6, 12)


def scheduling():
    """Return the policy, the nice value and the slice in ns that the kernel has for the calling thread."""
    found = time_slice._Attributes()
    size = ctypes.sizeof(found)
    assert ctypes.CDLL(None).syscall(ctypes.c_long(SCHED_GETATTR), 0, ctypes.byref(found), size, 0) == 0
    return found.policy, found.nice, found.runtime


def in_a_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_and_those_that_it_starts_get_a_long_slice_and_nothing_else_changes():
    def work():
        # The tests may run with another policy.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        before = scheduling()
        assert lengthen_time_slice()
        return before, scheduling(), in_a_thread(scheduling)

    own = scheduling()
    nice = min(own[1] + 3, 19)
    before, after, inherited = in_a_thread(work)
    assert before[:2] == (os.SCHED_OTHER, nice)
    assert after == inherited == (*before[:2], int(SLICE_SECONDS * 1e9) if HAS_SLICES else before[2])
    assert scheduling() == own


def test_another_policy_is_kept():
    def work():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return lengthen_time_slice(), os.sched_getscheduler(0)

    assert in_a_thread(work) == (False, os.SCHED_BATCH)
