"""KV caches that take memory only as far as they are used.

llama.cpp fills a new KV cache with zeros, which makes the kernel provide every page at once. Sixteen sequences of 4,096
tokens of a model of 135M parameters take 1.5 GB that way, and up to three seconds before the first token. But an
anonymous page that no process has touched reads as zeros already. So this module clears large buffers by giving their
pages back to the kernel (MADV_DONTNEED). Readers see the same zeros; the cost is neither time nor memory.

ggml clears a CPU buffer through a table of function pointers whose layout is not public. Each buffer type has a table
with a function that allocates buffers, and each buffer has a table with a function that clears it. Both pointers are
found by experiment on a small buffer: one pointer after the other is replaced by a function that does nothing, until
the public ggml function shows the effect. During `lazily_zeroed` the allocating function is replaced by one that
allocates as before and then replaces the clearing function of the new buffer. That replacement lasts as long as the
buffer, so the callbacks must never be freed.

Only versions of ggml that were tried are touched. Where the experiment finds nothing, and off Linux, caches are zeroed
as usual. The tables belong to the process, so only one thread may load at a time.
"""

import ctypes
import logging
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ctypes import c_int, c_size_t, c_uint8, c_void_p
from dataclasses import dataclass
from functools import cache

from llama_cpp._ggml import libggml

log = logging.getLogger(__name__)

VERSIONS = ("0.25.3",)
"""Versions of ggml for which the experiment is known to be safe."""
_MIN_BYTES = 1 << 20
"""Bytes of a buffer from which lazy clearing is worth it."""
_MAX_POINTERS = 16
"""Pointers of a table that are tried at most."""
_MADV_DONTNEED = 4

_Allocate = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_size_t)
_Clear = ctypes.CFUNCTYPE(None, c_void_p, c_uint8)


@dataclass(frozen=True, slots=True)
class _Hook:
    """The pointer to the function that allocates CPU buffers, and its replacement."""

    pointer: c_void_p
    replacement: c_void_p
    kept_alive: tuple[object, ...]
    """Objects that must outlive all buffers that the replacement allocated."""


@contextmanager
def lazily_zeroed(*, wanted: bool = True) -> Iterator[bool]:
    """Within this context, clear large CPU buffers lazily for as long as they live. Yields whether that works.

    `wanted`: False leaves ggml's tables alone. Only one thread may enter at a time.
    """
    hook = _hook() if wanted else None
    if hook is None:
        yield False
        return
    # The table is shared by all CPU buffers of the process, so the replacement lasts only as long as this load.
    original = hook.pointer.value
    hook.pointer.value = hook.replacement.value
    try:
        yield True
    finally:
        hook.pointer.value = original


@cache
def _hook() -> _Hook | None:
    """Find the two pointers, once for each process. The callbacks must live as long as ggml's tables point to them."""
    if not sys.platform.startswith("linux"):
        return None
    version = ggml_version()
    # In a table of an unknown layout the experiment itself could write to the wrong place, so it is not tried.
    if version not in VERSIONS:
        log.warning(
            "KV caches are zeroed at once: the layout of ggml's tables is known for ggml %s, not for %s",
            " and ".join(VERSIONS),
            version or "one without a version",
        )
        return None
    clear_index = allocate_index = None
    with suppress(AttributeError):  # This ggml lacks one of the public functions.
        ggml = _Ggml()
        buffer_type = ggml.cpu_buffer_type()
        clear_index = ggml.clear_index(buffer_type)
        allocate_index = ggml.allocate_index(buffer_type)
    if clear_index is None or allocate_index is None:
        log.warning("llama.cpp's buffers are not what they were: caches are zeroed at once")
        return None
    pointer = c_void_p.from_address(buffer_type + allocate_index * ctypes.sizeof(c_void_p))
    original = _Allocate(pointer.value or 0)
    clear = _Clear(ggml.clear)

    def make(of_kind: int, size: int) -> int | None:
        buffer: int | None = original(of_kind, size)
        # Small buffers are cleared as usual: a system call for each costs more than the zeros.
        if buffer and size >= _MIN_BYTES:
            _functions(buffer)[clear_index] = ctypes.cast(clear, c_void_p)
        return buffer

    replacement = _Allocate(make)
    return _Hook(pointer, ctypes.cast(replacement, c_void_p), (replacement, clear, original))


def ggml_version() -> str:
    """Return ggml's version, empty if it has no function that says so."""
    if not hasattr(libggml, "ggml_version"):
        return ""
    function = libggml.ggml_version
    function.restype = ctypes.c_char_p
    return bytes(function() or b"").decode()


class _Ggml:
    """ggml's public functions that the experiment needs, and the lazy clearing function."""

    def __init__(self) -> None:
        self.cpu_buffer_type = _function("ggml_backend_cpu_buffer_type", c_void_p)
        self._allocate = _function("ggml_backend_buft_alloc_buffer", c_void_p, c_void_p, c_size_t)
        self._clear = _function("ggml_backend_buffer_clear", None, c_void_p, c_uint8)
        self._free = _function("ggml_backend_buffer_free", None, c_void_p)
        self._base = _function("ggml_backend_buffer_get_base", c_void_p, c_void_p)
        self._size = _function("ggml_backend_buffer_get_size", c_size_t, c_void_p)
        self._madvise = ctypes.CDLL(None).madvise
        self._madvise.argtypes = [c_void_p, c_size_t, c_int]

    def clear(self, buffer: int, value: int) -> None:
        """Fill a buffer with a value.

        Zeros come from dropping the pages, except at the ends, whose pages other data may share.
        """
        # madvise takes whole pages, so the range is rounded inwards.
        base, size = self._base(buffer), self._size(buffer)
        first = -(-base // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (base + size) // mmap.PAGESIZE * mmap.PAGESIZE - first
        # Fresh pages give only zeros, and a buffer within one page has no page of its own to give back.
        if value or length <= 0 or self._madvise(first, length, _MADV_DONTNEED) != 0:
            ctypes.memset(base, value, size)
            return
        ctypes.memset(base, 0, first - base)
        ctypes.memset(first + length, 0, base + size - first - length)

    def clear_index(self, buffer_type: int) -> int | None:
        """Return the index of the clearing function.

        With a function that does nothing in its place, a buffer keeps its bytes.
        """
        buffer = self._allocate(buffer_type, 64)
        ineffective = _Clear(lambda *_: None)
        base = self._base(buffer)
        try:

            def is_effective() -> bool:
                ctypes.memset(base, 0, 1)
                self._clear(buffer, 1)
                return ctypes.string_at(base, 1) == b"\0"

            # The buffer's type follows the functions, and no function follows that.
            return _find_pointer(buffer, ctypes.cast(ineffective, c_void_p), is_effective, end=buffer_type)
        finally:
            self._free(buffer)

    def allocate_index(self, buffer_type: int) -> int | None:
        """Return the index of the allocating function.

        With a function that does nothing in its place, there is no new buffer.
        """
        ineffective = _Allocate(lambda *_: None)

        def is_effective() -> bool:
            buffer = self._allocate(buffer_type, 64)
            if buffer:
                self._free(buffer)
            return not buffer

        return _find_pointer(buffer_type, ctypes.cast(ineffective, c_void_p), is_effective)


def _find_pointer(
    table: int, replacement: c_void_p, is_effective: Callable[[], bool], end: int | None = None
) -> int | None:
    """Return the index of the pointer whose replacement makes `is_effective` true, or None if none does."""
    functions = _functions(table)
    for index in range(_MAX_POINTERS):
        original = functions[index]
        if original == end:
            return None
        # NULL stands for an optional function that this kind of buffer lacks.
        if original is None:
            continue
        functions[index] = replacement
        try:
            if is_effective():
                return index
        finally:
            # Put back before the next one is tried, so that at most one pointer is wrong at any time.
            functions[index] = original
    return None


def _functions(table: int) -> "ctypes.Array[c_void_p]":
    return (c_void_p * _MAX_POINTERS).from_address(table)


def _function(name: str, result: type | None, *arguments: type) -> Callable[..., int]:
    function = getattr(libggml, name)
    function.restype, function.argtypes = result, list(arguments)
    return function  # type: ignore[no-any-return]
