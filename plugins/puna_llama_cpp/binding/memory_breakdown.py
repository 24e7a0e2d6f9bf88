"""The memory that a model would take, as llama.cpp itself counts it.

A model that is opened without its tensors' data (`Weights` with `allocate=False`) goes through all of llama.cpp's
decisions: which layer is on which device, which type each buffer has, how large the KV cache is, and how large the
buffers for computing must be. llama.cpp exports two functions that return these sizes. Both are C++ functions that
return a `std::map` by value, so they are called under their mangled names, and the nodes of the map are read in the
layout of GNU's standard library. That layout is part of its stable ABI. The functions' own types may change with
llama.cpp, so they are called only in versions of ggml that were tried, and every size is checked.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import llama_cpp.llama_cpp as lib
import llama_cpp.mtmd_cpp as mtmd
from llama_cpp._ggml import libggml

from puna.backend import UnsupportedError
from puna_llama_cpp.binding.lazy_memory import VERSIONS, ggml_version

_OF_CONTEXT = "_Z26llama_get_memory_breakdownPK13llama_context"
_OF_PROJECTOR = "_Z21mtmd_get_memory_usagePKc19mtmd_context_params"
_CPU_DEVICE = 0
"""ggml's number of the type of the device that is the CPU."""
_MOST_NODES = 256
"""More buffer types or devices than any machine has."""
_MOST_BYTES = 1 << 48
UNKNOWN = "this build of llama.cpp does not tell how much memory a model would take"


class _Node(ctypes.Structure):
    """A node of a `std::map`; the key and the value follow it."""


_Node._fields_ = [
    ("color", ctypes.c_int),
    ("parent", ctypes.c_void_p),
    ("left", ctypes.POINTER(_Node)),
    ("right", ctypes.POINTER(_Node)),
]


class _Map(ctypes.Structure):
    """A `std::map`: an unused comparison, the header, whose parent is the root, and the number of nodes."""

    _fields_ = (("compare", ctypes.c_void_p), ("header", _Node), ("count", ctypes.c_size_t))


@dataclass(slots=True)
class DeviceBytes:
    """Bytes on one device."""

    weights: int = 0
    cache: int = 0
    compute: int = 0


def by_device(context: Any) -> dict[str, DeviceBytes]:  # noqa: ANN401 (a pointer, typed two ways in the binding)
    """Return the memory of a context and its model, by the name of the device; empty: the machine's own memory.

    Raises UnsupportedError if this llama.cpp does not tell.
    """
    function = _function(lib._lib, _OF_CONTEXT, ctypes.c_void_p)  # noqa: SLF001 (the binding has no function for it)
    found: dict[str, DeviceBytes] = {}
    for buffer_type, (weights, cache_bytes, compute) in _entries(function(context), 3):
        sizes = found.setdefault(_device_of_buffers(buffer_type), DeviceBytes())
        sizes.weights += weights
        sizes.cache += cache_bytes
        sizes.compute += compute
    return found


def of_projector(path: str, parameters: Any) -> dict[str, int]:  # noqa: ANN401 (a structure of the binding)
    """Return the memory of a projector with its buffers, by device as in `by_device`; empty if it cannot be read."""
    library = mtmd._libmtmd  # noqa: SLF001 (the binding has no function for it)
    function = _function(library, _OF_PROJECTOR, ctypes.c_char_p, mtmd.mtmd_context_params)
    return {_name(device): size for device, (size,) in _entries(function(path.encode(), parameters), 1)}


def free_bytes(device: str) -> int:
    """Return the free memory of a device other than the CPU; 0: unknown."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    pointer = _ggml("ggml_backend_dev_by_name", ctypes.c_void_p, ctypes.c_char_p)(device.encode())
    if not pointer:
        return 0
    read = _ggml("ggml_backend_dev_memory", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    read(pointer, ctypes.addressof(free), ctypes.addressof(total))
    return free.value


@cache
def _function(library: ctypes.CDLL, name: str, *arguments: type) -> Callable[..., _Map]:
    if not sys.platform.startswith("linux") or ggml_version() not in VERSIONS or not hasattr(library, name):
        raise UnsupportedError(UNKNOWN)
    function = getattr(library, name)
    function.restype, function.argtypes = _Map, arguments
    return function  # type: ignore[no-any-return]


def _entries(found: _Map, numbers: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the keys of a map, which are pointers, each with the numbers of its value.

    The nodes are never freed: each call leaves some hundred bytes, and the process ends after a few.
    """
    entry = ctypes.c_size_t * (1 + numbers)
    nodes = [ctypes.cast(found.header.parent, ctypes.POINTER(_Node))] if found.header.parent else []
    if not 0 <= found.count <= _MOST_NODES or bool(nodes) != bool(found.count):
        raise UnsupportedError(UNKNOWN)
    for _ in range(found.count):
        if not nodes:
            raise UnsupportedError(UNKNOWN)
        node = nodes.pop()
        nodes += [child for child in (node.contents.left, node.contents.right) if child]
        key, *values = entry.from_address(ctypes.addressof(node.contents) + ctypes.sizeof(_Node))
        if any(value > _MOST_BYTES for value in values):
            raise UnsupportedError(UNKNOWN)
        yield key, tuple(values)


def _device_of_buffers(buffer_type: int) -> str:
    # Memory of the machine may be a GPU's buffer type, pinned for fast transfers.
    if _ggml("ggml_backend_buft_is_host", ctypes.c_bool, ctypes.c_void_p)(buffer_type):
        return ""
    return _name(_ggml("ggml_backend_buft_get_device", ctypes.c_void_p, ctypes.c_void_p)(buffer_type))


def _name(device: int | None) -> str:
    if not device or _ggml("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)(device) == _CPU_DEVICE:
        return ""
    name = _ggml("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)(device)
    return bytes(name).decode("utf-8", "replace")


@cache
def _ggml(name: str, result: type | None, *arguments: type) -> Callable[..., Any]:
    # ggml is several libraries, and its own loader finds a function in any of them.
    function = getattr(libggml, name)
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]
