"""Runs work on large requests and answers in threads, beside the event loop.

Theory. All requests share the event loop, which is one thread. Work of more than a few milliseconds runs in a thread of
one of two executors, so that a few hundred kilobytes do not wait behind many megabytes. Python code in a thread shares
the interpreter with the loop, but yields it within SWITCH_SECONDS, so other requests are answered meanwhile. A single
call into native code does not yield it: callers split such work into chunks of CHUNK.

The unit of work is the weight. One JSON value weighs 1, which is about two microseconds of work.
"""

import asyncio
import ctypes
import gc
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LIGHT: Final = 2_000
"""Largest weight of work that runs in the event loop itself: some four milliseconds."""
HEAVY: Final = 50_000
"""Least weight of work that goes to the executor for long work."""
BYTES: Final = 1_000
"""Bytes of text or numbers that weigh as much as one JSON value."""
CHUNK: Final = 1 << 18
"""Characters or bytes that one call into native code may handle: a millisecond of work."""
SWITCH_SECONDS: Final = 0.001
"""The interpreter's switch interval in a server: how long the loop waits for a computing thread."""
TRIM_SECONDS: Final = 1.0
"""How long after heavy work its memory is returned to the system; the request is usually over by then."""

LOOKED_THROUGH: Final = 200_000
"""Number of objects, beyond those of the start, that a full garbage collection may visit: some 50 ms."""
PUT_OFF: Final = 20
"""How often a full collection is postponed because more objects than that are alive."""

_MMAP_THRESHOLD: Final = -3
"""glibc's parameter for the size from which an allocation is a memory mapping of its own."""
_LIBRARY: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
# Few threads: they share one interpreter, so more of them would only slow the event loop down.
_SHORT: Final = ThreadPoolExecutor(2, "short")
_LONG: Final = ThreadPoolExecutor(1, "long")
_gone: Final[ContextVar[Callable[[], bool]]] = ContextVar("gone")


class OffloadCancelledError(Exception):
    """The caller was cancelled, so the work stops. Nothing catches this error."""


async def offload_if_heavy(weight: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of a function, which runs in the event loop if its weight is light, else in a thread.

    Cancelling makes `check_cancelled` raise in the function; this does not wait for its end.
    """
    if weight <= LIGHT:
        return function(*args, **kwargs)
    # A thread cannot be cancelled. It asks this event through `check_cancelled`.
    left = threading.Event()

    def work() -> T:
        # A context variable, so that library code in between need not pass it on.
        token = _gone.set(left.is_set)
        try:
            with _COLLECTOR.resting(freeze=weight >= HEAVY):
                return function(*args, **kwargs)
        finally:
            _gone.reset(token)

    # Long work runs one at a time, and short work never waits behind it.
    lane = _LONG if weight >= HEAVY else _SHORT
    loop = asyncio.get_running_loop()
    try:
        # The context goes along: it tells who the caller is, and the ids of the log.
        return await loop.run_in_executor(lane, copy_context().run, work)
    except asyncio.CancelledError:
        left.set()
        raise
    finally:
        # Also after a cancellation, which leaves as much memory to return.
        if weight >= HEAVY:
            loop.call_later(TRIM_SECONDS, _SHORT.submit, _trim)


class _Collector:
    """Keeps Python's garbage collector away from large values.

    The collector visits all objects again and again while their number grows, without interruption, which takes half of
    the time in which a large body is read. It is therefore off while large values are made. A full collection visits
    them again for as long as they live, up to a second for a few bodies at once. Heavy work therefore ends with
    gc.freeze, which exempts every live object. A frozen object is freed with its last reference; frozen cycles are
    freed when `collect` finds few enough objects to visit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resting = 0
        self._frozen_before: int | None = None
        """Number of objects that were frozen before heavy work; None: there was no heavy work yet."""
        self._put_off = 0

    @contextmanager
    def resting(self, *, freeze: bool = False) -> Generator[None]:
        """Disable the collector, for all threads, in this block. With `freeze`, exempt all live objects afterwards."""
        with self._lock:
            # Other code has disabled the collector, as during the start, and decides when it is enabled again.
            if not self._resting and not gc.isenabled():
                counts = False
            else:
                counts = True
                # A count, since both executors may do such work at once. The last one enables the collector.
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
        """Collect cycles among frozen objects too, unless many objects are alive; after PUT_OFF times in any case."""
        with self._lock:
            if self._resting or self._frozen_before is None:
                return
            # The number of frozen objects is known without visiting them.
            many = gc.get_freeze_count() - self._frozen_before > LOOKED_THROUGH
            self._put_off = self._put_off + 1 if many else 0
            if many and self._put_off < PUT_OFF:
                return
            self._put_off = 0
            # Only unfrozen objects are searched for cycles. What survives is frozen again.
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._frozen_before = gc.get_freeze_count()


_COLLECTOR: Final = _Collector()


def prepare() -> None:
    """Set this process up for large work: threads switch often, and freed large texts return to the system."""
    sys.setswitchinterval(SWITCH_SECONDS)
    if (tune := getattr(_LIBRARY, "mallopt", None)) is not None:
        tune(_MMAP_THRESHOLD, 1 << 20)  # otherwise glibc raises it after the first large text, and keeps what is freed


def _trim() -> None:
    """Return freed memory to the system, which glibc would keep for the thread that freed it."""
    # An error and the frames of its traceback form a cycle, and a frame may hold a large request.
    _COLLECTOR.collect()
    if (trim := getattr(_LIBRARY, "malloc_trim", None)) is not None:
        trim(0)


def check_cancelled() -> None:
    """Raise OffloadCancelledError if the caller of the current work was cancelled. Long work calls it now and then."""
    if _gone.get(_never)():
        raise OffloadCancelledError


def _never() -> bool:
    return False


def weight_of_text(text: bytes) -> int:
    """Return the weight of decoding a JSON text: at least the number of its values, plus its bytes."""
    return len(text) // BYTES + sum(map(text.count, (b",", b"[", b"{")))


async def weight_of_body(body: bytes) -> int:
    """Return `weight_of_text`, computed without a long turn of the event loop."""
    return await offload_if_heavy(LIGHT + 1 if len(body) > CHUNK else 0, weight_of_text, body)


def weight_of_message(message: Any) -> int:  # noqa: ANN401 - any protobuf message; this module knows none
    """Return the weight of converting a protobuf message, estimated from its size."""
    return int(message.ByteSize()) // 32
