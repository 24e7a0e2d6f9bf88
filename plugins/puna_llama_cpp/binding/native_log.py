"""llama.cpp's log: kept in memory, and passed on to `logging`.

llama.cpp reports the reason of a failure and the sizes of its buffers nowhere else. There is one log callback for each
process, so the log is a singleton. A model may be loaded while another one of the process decodes, so each thread reads
the lines that llama.cpp has logged on it.
"""

import atexit
import ctypes
import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import llama_cpp.llama_cpp as lib

log = logging.getLogger(__name__)

_DEBUG, _WARNING, _ERROR = 1, 3, 4
# Lines about an evaluation that was aborted on demand (ggml's status 1, llama_decode's 2). They are no errors.
_ABORTED = re.compile(r"failed with error 1$|compute status: 1$|failed to decode, ret = 2$")
# What precedes the reason why a model or a projector was not loaded.
_LOAD_ERRORS = re.compile(r"error loading model: |mtmd_init_from_file: error: ")
_KEPT_LINES = 2000
_NOT_ROTATED = "attn_rot_k = 0"
# "llama_kv_cache: size =    0.00 MiB (   512 cells,   0 layers,  1/1 seqs), K (f16): ..."
_EMPTY_CACHE = re.compile(r"llama_kv_cache: size = .* 0 layers,")
# "load_tensors:   CPU_Mapped model buffer size =   103.67 MiB": the size and the device of one buffer.
_BUFFER = re.compile(r":\s+(\S+)\s+(?:\S+\s+)?buffer size\s*=\s*([\d.]+) MiB")


class _Kept(threading.local):
    """The lines of one thread."""

    def __init__(self) -> None:
        self.partial_line = ""
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.errors: deque[str] = deque(maxlen=20)


class NativeLog:
    """llama.cpp's log as lines. Errors go to `logging` as errors, warnings as information, the rest at debug level.

    Methods read the lines of the calling thread.
    """

    def __init__(self) -> None:
        """Take over llama.cpp's log callback until the interpreter exits."""
        self._kept = _Kept()
        self._setters: list[Callable[[Any, ctypes.c_void_p], None]] = []
        # llama.cpp holds a bare pointer, so the callback must stay referenced.
        self._callback = lib.llama_log_callback(self._on_message)
        self.attach(lib.llama_log_set)
        atexit.register(self._detach)

    def attach(self, log_set: Callable[[Any, ctypes.c_void_p], None]) -> None:
        """Set this log as the callback of another part of llama.cpp that has its own setter, such as mtmd."""
        log_set(self._callback, ctypes.c_void_p(0))
        if log_set not in self._setters:
            self._setters.append(log_set)

    def _detach(self) -> None:
        """Have llama.cpp drop its messages.

        A context that is freed while the interpreter takes its modules apart still logs, and so may a thread that
        decodes. C's `abs` serves as the callback: it ignores all but its first argument, and needs no interpreter.
        """
        address = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value
        for log_set in self._setters:
            log_set(lib.llama_log_callback(address or 0), ctypes.c_void_p(0))

    def _on_message(self, level: int, text: bytes, _data: object) -> None:
        kept = self._kept
        # llama.cpp logs parts of lines.
        *lines, kept.partial_line = (kept.partial_line + text.decode("utf-8", "replace")).split("\n")
        kept.lines.extend(lines)
        if level == _ERROR and any(map(_ABORTED.search, lines)):
            level = _DEBUG
        if level == _ERROR:
            kept.errors.extend(line for line in lines if line)
        for line in lines:
            if line:
                log.log({_ERROR: logging.ERROR, _WARNING: logging.INFO}.get(level, logging.DEBUG), "%s", line)

    def clear(self) -> None:
        """Drop all lines. Call it before an operation whose lines are read afterwards."""
        self._kept.lines.clear()
        self._kept.errors.clear()

    def last_error(self) -> str:
        """Return the last error line since `clear`; empty if there is none."""
        return self._kept.errors[-1] if self._kept.errors else ""

    def load_error(self) -> str:
        """Return why a model or projector could not be loaded.

        The last line says only that it could not, an earlier one why.
        """
        reasons = [line[match.end() :] for line in self._kept.errors if (match := _LOAD_ERRORS.search(line))]
        return reasons[-1] if reasons else self.last_error()

    def cache_bytes(self) -> int:
        """Return the bytes of the CPU's KV caches that were allocated since `clear`."""
        found = [match for line in self._kept.lines if " KV " in line and (match := _BUFFER.search(line))]
        return sum(int(float(match[2]) * 2**20) for match in found if match[1].startswith("CPU"))

    def has_unrotated_keys(self) -> bool:
        """Return whether a KV cache was made since `clear` whose keys are not rotated before they are quantized."""
        return any(_NOT_ROTATED in line for line in self._kept.lines)

    def has_empty_cache(self) -> bool:
        """Return whether a KV cache of no layers was made since `clear`."""
        return any(map(_EMPTY_CACHE.search, self._kept.lines))

    def output_bytes(self) -> int:
        """Return the bytes of the buffers for logits and vectors that were allocated since `clear`."""
        found = [match for line in self._kept.lines if " output buffer " in line and (match := _BUFFER.search(line))]
        return sum(int(float(match[2]) * 2**20) for match in found)

    def buffer_bytes(self) -> tuple[int, int]:
        """Return the bytes of all buffers allocated since `clear`, and of those outside the CPU's memory."""
        found = [match for line in self._kept.lines if (match := _BUFFER.search(line))]
        # A buffer is named after its device: CPU, CPU_Mapped and the like are in main memory, every other one is on a
        # GPU.
        sizes = [(match[1], int(float(match[2]) * 2**20)) for match in found]
        return sum(size for _, size in sizes), sum(size for name, size in sizes if not name.startswith("CPU"))


@cache
def captured_log() -> NativeLog:
    """Return the log of this process. It is never released, since llama.cpp may log at any time."""
    return NativeLog()
