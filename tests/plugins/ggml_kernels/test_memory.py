"""Huge pages for weights: which buffers of ggml ask the kernel for them."""

import subprocess
import sys

import pytest

# A process of its own: memory that earlier tests have freed may have asked before.
BUFFERS = """
import ctypes
from pathlib import Path

from puna_ggml_kernels import loader

assert loader.install()
from llama_cpp._ggml import libggml

for name in ("cpu_buffer_type", "buft_alloc_buffer", "buffer_get_base"):
    getattr(libggml, "ggml_backend_" + name).restype = ctypes.c_void_p


def middle_of_buffer(size):
    kind = ctypes.c_void_p(libggml.ggml_backend_cpu_buffer_type())
    buffer = ctypes.c_void_p(libggml.ggml_backend_buft_alloc_buffer(kind, ctypes.c_size_t(size)))
    return libggml.ggml_backend_buffer_get_base(buffer) + size // 2


def asks_for_huge_pages(address):
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if "-" in name and ":" not in name:
            first, end = (int(each, 16) for each in name.split("-"))
            inside = first <= address < end
        elif inside and name == "VmFlags:":
            return "hg" in rest.split()
    raise AssertionError(f"no mapping holds {address:x}")


with loader.huge_pages():
    weights, small = middle_of_buffer(64 << 20), middle_of_buffer(1 << 20)
cache = middle_of_buffer(64 << 20)
print(*(asks_for_huge_pages(each) for each in (weights, small, cache)))
"""


@pytest.mark.kernels
def test_large_buffers_ask_for_huge_pages_while_weights_are_loaded():
    done = subprocess.run([sys.executable, "-c", BUFFERS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["True", "False", "False"]
