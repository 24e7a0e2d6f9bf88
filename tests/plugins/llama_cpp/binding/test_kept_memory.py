"""Memory that stays between copies."""

import mmap

import numpy as np
import pytest

from puna_llama_cpp.binding.kept_memory import KeptMemory


def test_the_same_memory_serves_again_and_grows_on_demand():
    memory = KeptMemory()
    first = memory.take(10_000)
    first[:] = 7
    assert np.shares_memory(memory.take(9_000), first)
    assert len(memory.take(100_000)) >= 100_000
    assert first[-1] == 7  # what holds the old memory may still read it


@pytest.mark.parametrize("advice", ["taken", "refused"])
def test_released_memory_can_be_used_again(advice, monkeypatch):
    memory = KeptMemory()
    memory.take(10_000)
    if advice == "refused":  # as by a kernel without it
        monkeypatch.setattr(mmap, "MADV_FREE", -1)
    memory.release()
    memory.release()
    again = memory.take(10_000)
    again[:] = 5
    assert (again == 5).all()
