"""The part of ggml that the kernels touch, through ctypes. Importing this loads llama.cpp.

`native/ggml_abi.h` mirrors the same part for the C side.
"""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from types import TracebackType
from typing import Any, Final, Self

import llama_cpp

from puna_ggml_kernels.cpu_backend import load_cpu_backend

F32: Final = 0
F16: Final = 1
Q4_0: Final = 2
Q4_1: Final = 3
Q8_0: Final = 8
Q2_K: Final = 10
Q4_K: Final = 12
Q6_K: Final = 14
IQ4_NL: Final = 20
MXFP4: Final = 39

OBJECT_BYTES: Final = 32
"""Bytes of a tensor that ggml_tensor_overhead() counts beside the struct itself."""

FUNCTIONS: Final = {
    "sgemm": "llamafile_sgemm",
    "flash_attention": "ggml_compute_forward_flash_attn_ext",
    "mul_mat_tiled": "ggml_compute_forward_mul_mat_tiled",
    "mul_mat_id_tiled": "ggml_compute_forward_mul_mat_id_tiled",
    "chunk_add": "ggml_threadpool_chunk_add",
    "chunk_set": "ggml_threadpool_chunk_set",
    "barrier": "ggml_barrier",
    "quantize_row_q8_0": "quantize_row_q8_0",
    "quantize_row_q8_1": "quantize_row_q8_1",
    "quantize_row_q8_K": "quantize_row_q8_K",
    "rms_norm_mul": "ggml_compute_forward_rms_norm_mul_fused",
    "aligned_malloc": "ggml_aligned_malloc",
    "graph_compute": "ggml_graph_compute",
    "mul_mat": "ggml_compute_forward_mul_mat",
    "add": "ggml_compute_forward_add",
    "glu": "ggml_compute_forward_glu",
    "rope": "ggml_compute_forward_rope",
    "set_rows": "ggml_compute_forward_set_rows",
    "swiglu": "ggml_vec_swiglu_f32",
    "to_f16": "ggml_cpu_fp32_to_fp16",
    "dot_q5_k": "ggml_vec_dot_q5_K_q8_K",
    "dot_q6_k": "ggml_vec_dot_q6_K_q8_K",
    "dot_iq4_xs": "ggml_vec_dot_iq4_xs_q8_K",
    "unary": "ggml_compute_forward_unary",
    "gelu": "ggml_table_gelu_f16",
    "has_avx512_bf16": "ggml_cpu_has_avx512_bf16",
    "threadpool_params_init": "ggml_threadpool_params_init",
    "threadpool_new": "ggml_threadpool_new",
    "threadpool_free": "ggml_threadpool_free",
}
"""ggml's functions that the kernels replace or call, by the member of struct ggml_functions that holds the pointer."""

INSTRUCTIONS: Final = ("avx512", "avx512_vnni", "fma", "f16c")
"""Instruction sets that ggml must be compiled for: its sums have another order without them."""


class Functions(ctypes.Structure):
    """The struct ggml_functions of ggml_abi.h."""

    _fields_ = [(name, c_void_p) for name in (*FUNCTIONS, "omp_threads")]


class GgufParameters(ctypes.Structure):
    """The struct gguf_init_params of gguf.h."""

    _fields_ = [("no_alloc", c_bool), ("context", c_void_p)]


class _ContextParameters(ctypes.Structure):
    """The struct ggml_init_params of ggml.h."""

    _fields_ = [("size", c_size_t), ("buffer", c_void_p), ("no_alloc", c_bool)]


def function(name: str, result: type[Any] | None, *arguments: type[Any]) -> Callable[..., Any]:
    """Return a function of ggml with its C types. Raises AttributeError if the library does not export it."""
    # A prototype of its own: the function objects of a library are shared with all others who type them.
    return ctypes.CFUNCTYPE(result, *arguments)((name, load_cpu_backend()))


def own_functions() -> tuple[Functions, list[str]]:
    """Return ggml's functions, with NULL for each that the library does not export, and the names of the missing."""
    backend = load_cpu_backend()
    found = {member: getattr(backend, name, None) for member, name in FUNCTIONS.items()}
    missing = [FUNCTIONS[member] for member, each in found.items() if each is None]
    # The search goes through the libraries that the backend is linked to, of which OpenMP's is one.
    found["omp_threads"] = getattr(backend, "omp_get_num_threads", None) if has_openmp() else None
    return Functions(*(each and ctypes.cast(each, c_void_p) for each in found.values())), missing


def missing_instructions() -> list[str]:
    """Return the members of INSTRUCTIONS that ggml was compiled without, whatever the processor has."""
    return [name for name in INSTRUCTIONS if not function(f"ggml_cpu_has_{name}", c_int)()]


def has_openmp() -> bool:
    """Return whether ggml divides its work by OpenMP, and not among threads of its own."""
    return b"OPENMP = 1" in llama_cpp.llama_print_system_info()


def tensor_bytes() -> int:
    """Return the size of the struct ggml_tensor in bytes."""
    # ggml exports no function for the size of the struct alone.
    return int(function("ggml_tensor_overhead", c_size_t)()) - OBJECT_BYTES


def read_tensor_types(path: str) -> list[tuple[bytes, int]] | None:
    """Return the name and the type of each tensor of a GGUF file; None if ggml cannot read it."""
    # No memory for tensors, and no context: ggml reads the header only.
    opened = function("gguf_init_from_file", c_void_p, c_char_p, GgufParameters)(
        path.encode(), GgufParameters(True, None)
    )
    if not opened:
        return None
    tensor_name = function("gguf_get_tensor_name", c_char_p, c_void_p, c_int64)
    tensor_type = function("gguf_get_tensor_type", c_int, c_void_p, c_int64)
    count = function("gguf_get_n_tensors", c_int64, c_void_p)(opened)
    tensors = [(tensor_name(opened, index), tensor_type(opened, index)) for index in range(count)]
    function("gguf_free", None, c_void_p)(opened)
    return tensors


class Graph:
    """A small computation on one thread. Its tensors live as long as the context manager."""

    def __init__(self, memory_bytes: int) -> None:
        """`memory_bytes`: room for all tensors, for the graph and for ggml's scratch memory."""
        self._memory_bytes = memory_bytes
        self._context: int | None = None

    def __enter__(self) -> Self:
        """Allocate the memory."""
        function("ggml_cpu_init", None)()  # the tables that convert 16-bit floats
        parameters = _ContextParameters(self._memory_bytes, None, False)
        self._context = function("ggml_init", c_void_p, _ContextParameters)(parameters)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Free the memory."""
        function("ggml_free", None, c_void_p)(self._context)

    def tensor(self, kind: int, shape: Sequence[int], data: bytes) -> int:
        """Return a new tensor with `shape` elements, the fastest dimension first, that holds a copy of `data`."""
        # ggml's tensors always have four dimensions.
        sizes = [*shape, *[1] * (4 - len(shape))]
        new = function("ggml_new_tensor_4d", c_void_p, c_void_p, c_int, c_int64, c_int64, c_int64, c_int64)
        tensor: int = new(self._context, kind, *sizes)
        ctypes.memmove(self._data(tensor), data, len(data))
        return tensor

    def quantized(self, kind: int, columns: int, values: Sequence[float]) -> int:
        """Return a new matrix whose rows of `columns` values are quantized to a type."""
        rows = len(values) // columns
        row_bytes = function("ggml_row_size", c_size_t, c_int, c_int64)(kind, columns)
        data = ctypes.create_string_buffer(rows * row_bytes)
        quantize = function(
            "ggml_quantize_chunk", c_size_t, c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p
        )
        floats = (ctypes.c_float * len(values))(*values)
        # Without an importance matrix, which these types do not need.
        quantize(kind, ctypes.addressof(floats), ctypes.addressof(data), 0, rows, columns, None)
        return self.tensor(kind, (columns, rows), data.raw)

    def multiply(self, matrix: int, columns: int) -> int:
        """Return the node of a product."""
        return int(function("ggml_mul_mat", c_void_p, c_void_p, c_void_p, c_void_p)(self._context, matrix, columns))

    def attention(self, query: int, key: int, value: int, mask: int, scale: float) -> int:
        """Return the node of an attention."""
        floats = [ctypes.c_float] * 3
        node = function("ggml_flash_attn_ext", c_void_p, *[c_void_p] * 5, *floats)
        return int(node(self._context, query, key, value, mask, scale, 0, 0))

    def compute(self, node: int) -> bytes:
        """Evaluate a node and return its elements."""
        graph = function("ggml_new_graph", c_void_p, c_void_p)(self._context)
        function("ggml_build_forward_expand", None, c_void_p, c_void_p)(graph, node)
        function("ggml_graph_compute_with_ctx", c_int, c_void_p, c_void_p, c_int)(self._context, graph, 1)
        return ctypes.string_at(self._data(node), function("ggml_nbytes", c_size_t, c_void_p)(node))

    def _data(self, tensor: int) -> int:
        return int(function("ggml_get_data", c_void_p, c_void_p)(tensor))
