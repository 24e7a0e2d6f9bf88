"""How much memory a cache takes before it is used, and that it holds zeros all the same."""

import ctypes
import re
import sys
from pathlib import Path

import pytest
from llama_cpp._ggml import libggml

from puna_llama_cpp.binding import lazy_memory
from puna_llama_cpp.binding.lazy_memory import lazily_zeroed

BYTES = 64 << 20


def trim_heap():
    """Give freed memory back. It would count, and it would serve again for a buffer, resident already."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture
def make():
    """Makes buffers of the CPU; every one is freed at the end."""
    buffers = []

    def make():
        trim_heap()
        buffer = libggml.ggml_backend_buft_alloc_buffer(libggml.ggml_backend_cpu_buffer_type(), ctypes.c_size_t(BYTES))
        buffers.append(ctypes.c_void_p(buffer))
        return buffers[-1]

    yield make
    for buffer in buffers:
        libggml.ggml_backend_buffer_free(buffer)


def clear(buffer, value):
    libggml.ggml_backend_buffer_clear(buffer, ctypes.c_uint8(value))


def content(buffer):
    """The bytes, read in full."""
    return ctypes.string_at(libggml.ggml_backend_buffer_get_base(buffer), BYTES)


def resident():
    trim_heap()
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def test_clearing_takes_no_memory_and_gives_some_back(make):
    with lazily_zeroed() as lazily:
        assert lazily is sys.platform.startswith("linux")
        buffer = make()
    before = resident()
    clear(buffer, 0)
    assert resident() - before < BYTES / 8
    clear(buffer, 7)
    assert resident() - before > BYTES / 2
    assert set(content(buffer)) == {7}
    clear(buffer, 0)
    assert resident() - before < BYTES / 8
    assert set(content(buffer)) == {0}


def test_buffers_made_outside_are_as_they_ever_were(make):
    with lazily_zeroed():
        pass
    buffer, before = make(), resident()
    clear(buffer, 0)
    assert resident() - before > BYTES / 2


def test_a_switch_leaves_ggmls_table_alone(make):
    with lazily_zeroed(wanted=False) as lazily:
        assert not lazily
        buffer, before = make(), resident()
    clear(buffer, 0)
    assert resident() - before > BYTES / 2


def test_the_tables_of_other_versions_are_left_alone(monkeypatch, caplog):
    monkeypatch.setattr(lazy_memory, "VERSIONS", ("0.1.0",))
    assert lazy_memory._hook.__wrapped__() is None
    assert "known for ggml 0.1.0, not for " + lazy_memory.ggml_version() in caplog.text
