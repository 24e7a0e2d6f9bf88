"""Finds ggml's CPU backend, which is linked to llama.cpp or loaded at run time. Importing this loads llama.cpp.

A build for one machine links the backend (GGML_BACKEND_DL off). A build for others (`make wheel`) has a library for
each generation of processors, `libggml-cpu-zen4.so` among them, and ggml loads the best that the processor can run. Of
its own accord ggml looks for them beside Python and in the working directory. Puna names the folder of llama.cpp's
libraries instead, the only one in which they lie, so that no file of a working directory is ever loaded.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Final

import llama_cpp

# A wheel holds a copy of ggml's library under each of its names, and every loaded copy has a list of backends of its
# own. The list that counts is that of the copy that llama.cpp is linked to, so functions are looked up from there.
from llama_cpp.llama_cpp import _lib

_FUNCTION: Final = "ggml_cpu_init"
"""A function that the CPU backend exports and no other library of ggml."""
_MAPS: Final = Path("/proc/self/maps")


class NoCpuBackendError(Exception):
    """None of ggml's CPU backends can run on this processor."""


@cache
def load_cpu_backend() -> ctypes.CDLL:
    """Load ggml's backends where ggml does so at run time; return the library that exports the CPU backend.

    The kernels' library must be loaded before, or ggml does not call it. Raises NoCpuBackendError.
    """
    linked: ctypes.CDLL = _lib
    if hasattr(linked, _FUNCTION):
        return linked
    folder = Path(llama_cpp.__file__).parent / "lib"
    if not linked.ggml_backend_reg_count():
        linked.ggml_backend_load_all_from_path(str(folder).encode())
    # ggml does not tell which variant it has chosen. It has closed the others.
    loaded = {line.split(maxsplit=5)[-1].strip() for line in _MAPS.read_text().splitlines() if "/libggml-cpu" in line}
    for path in loaded:
        library = ctypes.CDLL(path)
        if hasattr(library, _FUNCTION):
            return library
    raise NoCpuBackendError(f"no CPU backend of ggml in {folder} fits this processor")
