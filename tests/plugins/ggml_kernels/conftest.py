import ctypes

import numpy as np
import pytest
from llama_cpp._ggml import libggml
from tests.plugins.ggml_kernels.arrays import pointer

from puna_ggml_kernels import loader

FLOATS = {np.dtype(np.float32): 0, np.dtype(np.float16): 1}
"""The number that ggml.h gives to the type of an array."""


class Memory(ctypes.Structure):
    """The struct ggml_init_params: the memory in which tensors are made."""

    _fields_ = [("size", ctypes.c_size_t), ("at", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


@pytest.fixture(scope="module")
def ggml():
    """The library of ggml, with its own quantization and dot products."""
    libggml.ggml_row_size.restype = ctypes.c_size_t
    libggml.ggml_cpu_init()  # its tables of 16-bit floats
    return libggml


@pytest.fixture(scope="module")
def library():
    library = loader.install()
    assert library
    loader.set_order(tiled_from=loader.TILED_PREFILL_ROWS)
    loader.set_exact(exact=True)
    return library


@pytest.fixture
def quantize(ggml):
    """Return a function that quantizes rows of floats to a type."""

    def quantize(kind, values):
        rows, length = values.shape
        data = np.zeros((rows, ggml.ggml_row_size(kind, ctypes.c_int64(length))), np.uint8)
        whole = map(ctypes.c_int64, (0, rows, length))
        ggml.ggml_quantize_chunk(kind, pointer(values), pointer(data), *whole, None)
        return data

    return quantize


@pytest.fixture
def compute(ggml):
    """Return a function that computes, with ggml, the node that a function makes of arrays."""
    for name in ("init", "new_tensor_4d", "get_data", "rms_norm", "mul", "flash_attn_ext", "new_graph"):
        getattr(ggml, f"ggml_{name}").restype = ctypes.c_void_p

    def compute(arrays, make, shape, threads):
        size = 4 * int(np.prod(shape))
        memory = ctypes.c_void_p(
            ggml.ggml_init(Memory(2 * size + sum(x.nbytes for x in arrays) + (8 << 20), None, False))
        )
        tensors = []
        for array in arrays:
            sizes = map(ctypes.c_int64, reversed(array.shape))
            tensors.append(ctypes.c_void_p(ggml.ggml_new_tensor_4d(memory, FLOATS[array.dtype], *sizes)))
            ctypes.memmove(ctypes.c_void_p(ggml.ggml_get_data(tensors[-1])), pointer(array), array.nbytes)
        out = ctypes.c_void_p(make(memory, *tensors))
        graph = ctypes.c_void_p(ggml.ggml_new_graph(memory))
        ggml.ggml_build_forward_expand(graph, out)
        ggml.ggml_graph_compute_with_ctx(memory, graph, threads)
        result = np.frombuffer(ctypes.string_at(ggml.ggml_get_data(out), size), np.float32).copy()
        ggml.ggml_free(memory)
        return result.reshape(shape)

    return compute
