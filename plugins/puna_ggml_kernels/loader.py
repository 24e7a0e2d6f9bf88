"""The kernels of native/: found, put before ggml's own functions of the same names, and switched on.

The dynamic linker calls the first of two functions with one name. So the library is loaded, with its names for all to
see, before those of llama.cpp; it passes on to ggml's what it does not do better. Other systems than Linux bind names
to libraries; they, processors without AVX-512 VNNI, and versions of ggml that nobody tried are left to ggml.
"""

import ctypes
import importlib.util
import logging
import os
import sys
from functools import cache
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)
_LIBRARY = Path(__file__).parent / "native" / "kernels.so"
_TRIED = ("0.25.3",)
"""Versions of ggml whose structures ggml_abi.h mirrors. A new one is added once its tests have passed."""
MANY_ROWS: Final = 64
"""Tokens of a sequence in one batch from which ggml computes their attention in tiles, with 32-bit floats."""
FEW_ROWS: Final = 2
"""Tokens of a sequence from which, beside streams, they can be told from a stream's one."""
_OBJECT_BYTES = 32
"""What ggml_tensor_overhead() counts beside the tensor itself."""
_EXPORTS = {
    "sgemm": "llamafile_sgemm",
    "flash_attention": "ggml_compute_forward_flash_attn_ext",
    "mul_mat_tiled": "ggml_compute_forward_mul_mat_tiled",
    "chunk_add": "ggml_threadpool_chunk_add",
    "chunk_set": "ggml_threadpool_chunk_set",
    "barrier": "ggml_barrier",
    "quantize_row_q8_0": "quantize_row_q8_0",
    "quantize_row_q8_K": "quantize_row_q8_K",
    "rms_norm_mul": "ggml_compute_forward_rms_norm_mul_fused",
}
_TAKEN_AS_THEY_ARE = {2, 12}
"""Types that ggml would repack on x86 and the kernels multiply as they are, in ggml.h's numbers: Q4_0, Q4_K."""
_REPACKED = {10, 20, 39}
"""Types that ggml repacks and the kernels know nothing of: Q2_K, IQ4_NL, MXFP4."""


class _Functions(ctypes.Structure):
    """The struct ggml_functions of ggml_abi.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in _EXPORTS]


@cache
def install() -> ctypes.CDLL | None:
    """Load the library and then llama.cpp's, and switch the kernels on.

    None: there is no such library, it does not fit, PUNA_KERNELS is 0, llama.cpp was loaded before, or the processor is
    another.
    """
    if sys.platform != "linux" or os.environ.get("PUNA_KERNELS") == "0" or not _LIBRARY.exists():
        return None
    if "llama_cpp" in sys.modules or not _fits():
        _log.info("the kernels fit only ggml %s, built as a library of its own", " or ".join(_TRIED))
        return None
    library = ctypes.CDLL(str(_LIBRARY), mode=ctypes.RTLD_GLOBAL)
    library.puna_tensor_size.restype = ctypes.c_size_t
    library.puna_switch.argtypes = [ctypes.c_bool]
    library.puna_switch.restype = ctypes.c_bool
    library.puna_alone.argtypes = [ctypes.c_bool]
    library.puna_matmul_calls.restype = library.puna_attention_calls.restype = ctypes.c_long
    # Not by the path of ggml's library: wheels have a copy under each of its names, of which one is in use.
    from llama_cpp._ggml import libggml

    own = _Functions(*(ctypes.cast(getattr(libggml, name), ctypes.c_void_p) for name in _EXPORTS.values()))
    library.puna_set_functions(ctypes.byref(own))
    libggml.ggml_tensor_overhead.restype = ctypes.c_size_t
    fits = libggml.ggml_tensor_overhead() == library.puna_tensor_size() + _OBJECT_BYTES
    return library if fits and library.puna_switch(True) else None


class _ReadOptions(ctypes.Structure):
    """The struct gguf_init_params of gguf.h."""

    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p)]


def repacking(path: str) -> bool:
    """Say whether ggml should repack a model's weights, which puts them out of the kernels' reach.

    It should where there are experts, whose products the kernels leave to it, or types that only it multiplies well.
    """
    if install() is None:
        return True
    from llama_cpp._ggml import libggml

    libggml.gguf_init_from_file.restype = ctypes.c_void_p
    libggml.gguf_get_n_tensors.restype = ctypes.c_int64
    libggml.gguf_get_tensor_name.restype = ctypes.c_char_p
    opened = libggml.gguf_init_from_file(path.encode(), _ReadOptions(True, None))
    if not opened:
        return True
    file = ctypes.c_void_p(opened)
    indices = [ctypes.c_int64(index) for index in range(libggml.gguf_get_n_tensors(file))]
    types = {libggml.gguf_get_tensor_type(file, index) for index in indices}
    experts = any(b"_exps" in libggml.gguf_get_tensor_name(file, index) for index in indices)
    libggml.gguf_free(file)
    return experts or bool(types & _REPACKED) or not types & _TAKEN_AS_THEY_ARE


def arrange(*, tiles_from: int, alone: bool) -> None:
    """Choose between orders of sums where ggml knows several; its own functions have no such choice.

    `tiles_from`: attention is computed in tiles also for fewer tokens of a sequence than MANY_ROWS, which gives each
    the bits that it has in a batch of many. llama.cpp divides a batch, so that even one may be left over. `alone`:
    products of a few tokens have the bits of one token by itself.
    """
    library = install()
    if library is not None:
        library.puna_tile_from(tiles_from)
        library.puna_alone(alone)


def _fits() -> bool:
    """Say whether llama.cpp has a version that was tried, without loading it: afterwards is too late."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or not found.origin:
        return False
    folder = Path(found.origin).parent / "lib"
    return any((folder / f"libggml-cpu.so.{version}").exists() for version in _TRIED)
