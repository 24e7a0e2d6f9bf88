"""Work on large requests and answers, beside the event loop.

All requests share the event loop, which is one thread. Work of more than a few milliseconds runs in a thread here.
Python code in a thread still shares the interpreter with the loop, but hands it over within SWITCH_SECONDS, so others
are answered meanwhile. A single call into native code does not hand it over: callers cut such work into pieces.

There are two lanes, so that a few hundred kilobytes do not wait behind many megabytes.
"""

import asyncio
import ctypes
import gc
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LIGHT: Final = 2_000
"""Largest weight that the event loop itself carries. A JSON value weighs 1, which is some two microseconds."""
HEAVY: Final = 50_000
"""Least weight that goes into the lane for long work."""
BYTES: Final = 1_000
"""Bytes of text or numbers that weigh as much as a value."""
CHUNK: Final = 1 << 18
"""Characters or bytes that native code may handle in one call: a millisecond's work."""
SWITCH_SECONDS: Final = 0.001
"""The interpreter's switch interval in a server: how long the loop waits for a thread that computes."""
TRIM_SECONDS: Final = 1.0
"""How long after heavy work its memory is given back; the request is mostly over by then."""

LOOKED_THROUGH: Final = 200_000
"""Objects that a full collection may look through beside those of the start: some 50 ms."""
PUT_OFF: Final = 20
"""Times that a full collection is put off because more objects than that are alive."""

_MMAP_THRESHOLD: Final = -3
"""glibc's number for the size from which on memory is a mapping of its own."""
_LIBRARY: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
_SHORT: Final = ThreadPoolExecutor(2, "short")
_LONG: Final = ThreadPoolExecutor(1, "long")
_gone: Final[ContextVar[Callable[[], bool]]] = ContextVar("gone")


class OffloadCancelledError(Exception):
    """The caller was cancelled, so the result is of no use. No code handles this error."""


async def offload_if_heavy(weight: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a function returns, called at once if it is light work, else in a thread.

    Being cancelled makes `check_wanted` raise in the function. Its end is not waited for.
    """
    if weight <= LIGHT:
        return function(*args, **kwargs)
    left = threading.Event()

    def work() -> T:
        token = _gone.set(left.is_set)
        try:
            with _COLLECTOR.resting(freeze=weight >= HEAVY):
                return function(*args, **kwargs)
        finally:
            _gone.reset(token)

    lane = _LONG if weight >= HEAVY else _SHORT
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(lane, work)
    except asyncio.CancelledError:
        left.set()
        raise
    finally:
        if weight >= HEAVY:
            loop.call_later(TRIM_SECONDS, _SHORT.submit, _trim)


class _Collector:
    """Keeps Python's garbage collector away from large values.

    It looks through all objects again and again while their number grows, in one call without interruption: half
    of the time that it takes to read a large body. So it is off while large values are made. A full collection goes
    through them once more for as long as they live, up to a second for a few bodies at once. So heavy work ends with
    gc.freeze, which exempts everything that is alive. Frozen objects go as their last reference does; those in cycles
    go when `collect` finds few enough of them to look through.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resting = 0
        self._frozen_before: int | None = None
        """Objects that were frozen before heavy work: those of the start, then those that the last collection left."""
        self._put_off = 0

    @contextmanager
    def resting(self, *, freeze: bool = False) -> Generator[None]:
        """Keep it off in this block; it is the same for all threads. freeze: exempt all objects from it afterwards."""
        with self._lock:
            if not self._resting and not gc.isenabled():
                counts = False
            else:
                counts = True
                self._resting += 1
                gc.disable()
        try:
            yield
        finally:
            with self._lock:
                if counts:
                    if freeze:
                        if self._frozen_before is None:
                            self._frozen_before = gc.get_freeze_count()
                        gc.freeze()
                    self._resting -= 1
                    if not self._resting:
                        gc.enable()

    def collect(self) -> None:
        """Collect cycles among frozen objects too, unless many are alive; after PUT_OFF times in any case."""
        with self._lock:
            if self._resting or self._frozen_before is None:
                return
            many = gc.get_freeze_count() - self._frozen_before > LOOKED_THROUGH
            self._put_off = self._put_off + 1 if many else 0
            if many and self._put_off < PUT_OFF:
                return
            self._put_off = 0
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._frozen_before = gc.get_freeze_count()


_COLLECTOR: Final = _Collector()


def prepare() -> None:
    """Set this process up for large work: threads take turns often, and memory of large texts is given back."""
    sys.setswitchinterval(SWITCH_SECONDS)
    if (tune := getattr(_LIBRARY, "mallopt", None)) is not None:
        tune(_MMAP_THRESHOLD, 1 << 20)  # glibc would raise it with the first large text, and then keep what is freed


def _trim() -> None:
    """Give memory that was freed back to the system; glibc keeps what a thread has freed for that thread."""
    _COLLECTOR.collect()  # errors hold frames, and those hold what was refused
    if (trim := getattr(_LIBRARY, "malloc_trim", None)) is not None:
        trim(0)


def check_cancelled() -> None:
    """Raise GivenUpError if the caller of the current work was cancelled. Long work calls it now and then."""
    if _gone.get(_never)():
        raise OffloadCancelledError


def _never() -> bool:
    return False


def weight_of_text(text: bytes) -> int:
    """Return what the decoding of a JSON text weighs: at least its values, and its bytes."""
    return len(text) // BYTES + sum(map(text.count, (b",", b"[", b"{")))


async def weight_of_body(body: bytes) -> int:
    """Return the same without a long turn of the loop."""
    return await offload_if_heavy(LIGHT + 1 if len(body) > CHUNK else 0, weight_of_text, body)


def weight_of_message(message: Any) -> int:  # noqa: ANN401 - any protobuf message; this module knows none
    """Return what the conversion of a message weighs: a value may take as little as two bytes."""
    return int(message.ByteSize()) // 32
