"""Huge pages for weights: which buffers of ggml ask the kernel for them."""

import ctypes
from pathlib import Path

import pytest

from puna_ggml_kernels import loader

WEIGHTS = 64 << 20


@pytest.fixture
def buffer(ggml):
    """Return a function that allocates a buffer as llama.cpp does, and returns where it begins."""
    for name in ("cpu_buffer_type", "buft_alloc_buffer", "buffer_get_base"):
        getattr(ggml, f"ggml_backend_{name}").restype = ctypes.c_void_p
    buffers = []

    def buffer(size):
        kind = ctypes.c_void_p(ggml.ggml_backend_cpu_buffer_type())
        buffers.append(ctypes.c_void_p(ggml.ggml_backend_buft_alloc_buffer(kind, ctypes.c_size_t(size))))
        return ggml.ggml_backend_buffer_get_base(buffers[-1])

    yield buffer
    for each in buffers:
        ggml.ggml_backend_buffer_free(each)


def asks_for_huge_pages(address):
    """Whether the mapping with an address has the flag that madvise sets."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if "-" in name and ":" not in name:
            first, end = (int(each, 16) for each in name.split("-"))
            inside = first <= address < end
        elif inside and name == "VmFlags:":
            return "hg" in rest.split()
    raise AssertionError(f"no mapping holds {address:x}")


@pytest.mark.kernels
def test_large_buffers_ask_for_huge_pages_while_weights_are_loaded(library, buffer):
    with loader.huge_pages():
        weights, small = buffer(WEIGHTS), buffer(1 << 20)
    cache = buffer(WEIGHTS)
    middle = WEIGHTS // 2
    assert asks_for_huge_pages(weights + middle)
    assert not asks_for_huge_pages(small + (1 << 19))
    assert not asks_for_huge_pages(cache + middle)
