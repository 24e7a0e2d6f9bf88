"""Keeps a model's memory from being freed under calls that use it.

The threads of a model end before its memory is freed. But texts are tokenized on the thread of the caller: an event
loop, or a thread of its pool. A request may do so while the model is being unloaded, or afterwards. llama.cpp checks
nothing, so such a call would read freed memory.
"""

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from puna_llama_cpp.step_thread import unloaded_error

P = ParamSpec("P")
T = TypeVar("T")


class NativeCalls:
    """The calls of one model that use llama.cpp's memory. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self.closed = False
        """True once `close` was called."""

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function and return its result. Raises BackendError instead if the model was unloaded."""
        with self._changed:
            if self.closed:
                raise unloaded_error()
            self._running += 1
        try:
            return function(*args, **kwargs)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Refuse all further calls, and wait for those that run."""
        with self._changed:
            self.closed = True
            self._changed.wait_for(lambda: not self._running)
