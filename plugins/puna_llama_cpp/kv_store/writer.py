"""The thread that writes copies of states, and prepares memory for the next ones.

While the model computes, it takes a tenth of a core, so that streams hardly notice it. It makes haste if another copy
waits, if a prompt needs a sequence that is not written yet, and when the model is unloaded.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from puna_llama_cpp.kv_store.buffers import StateBuffers, touched
from puna_llama_cpp.kv_store.file_format import State
from puna_llama_cpp.kv_store.store import common_length

_SHARE: Final = 0.1
"""The part of a core that writing takes while the model computes."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A copy that is to be written."""

    tokens: list[int]
    salt: str
    state: State

    @property
    def buffer(self) -> State:
        """The memory that has the state."""
        base = self.state.base
        return base if isinstance(base, np.ndarray) else self.state


class StateWriter:
    """The copies that wait to be written, and their thread. Methods may be called from any thread."""

    def __init__(self, write: Callable[[Job], None]) -> None:
        """Start the thread, which calls `write` with each copy."""
        self._write = write
        self.busy = False
        """True while sequences run. The decode thread sets it."""
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._writing: Job | None = None
        self._buffers = StateBuffers()
        self._hurried = 0
        """Prompts that wait until a sequence is written."""
        self._closing = False
        self._paced_at = 0.0
        """The processor time of the thread at its last pause."""
        self._thread = threading.Thread(target=self._run, name="kv-write", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, without a pause, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def put(self, job: Job) -> None:
        """Have a copy written, unless the thread has ended."""
        with self._changed:
            if not self._closing:
                self._jobs.append(job)
                self._changed.notify_all()

    def unwritten(self) -> list[Job]:
        """Return the copies that are not written yet."""
        with self._changed:
            return self._unwritten()

    def _unwritten(self) -> list[Job]:
        return [*self._jobs, *([self._writing] if self._writing else [])]

    def expect(self, size: int) -> None:
        """Prepare memory for copies of this size."""
        with self._changed:
            if self._buffers.expect(size):
                self._changed.notify_all()

    def take_buffer(self) -> State | None:
        """Return memory for a copy; None if there is none."""
        with self._changed:
            return self._buffers.take()

    def release_buffers(self) -> None:
        """Free the memory that is kept for copies."""
        with self._changed:
            self._buffers.clear()

    def finish(self, prompt: list[int], salt: str, gain: int) -> None:
        """Wait until all sequences are written that share at least `gain` leading tokens with a prompt."""
        near = [job for job in self.unwritten() if job.salt == salt and job.tokens[0] == prompt[0]]
        array = np.asarray(prompt if near else [], np.int32)
        wanted = [job for job in near if common_length(np.asarray(job.tokens, np.int32), array) >= gain]
        if not wanted:
            return
        with self._changed:
            for job in wanted:
                if job in self._jobs:
                    self._jobs.remove(job)
                    self._jobs.appendleft(job)
            self._hurried += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing or not set(wanted) & set(self._unwritten()))
            self._hurried -= 1

    def pace(self) -> bool:
        """Sleep as long as it takes to use no more than a part of a core. Return whether the model stays loaded.

        Call it on the writing thread.
        """
        used = time.thread_time() - self._paced_at
        with self._changed:
            if self.busy and not self._in_haste():
                self._changed.wait_for(self._in_haste, used * (1 / _SHARE - 1))
        self._paced_at = time.thread_time()
        return not self._closing

    def _in_haste(self) -> bool:
        return bool(self._jobs) or self._hurried > 0 or self._closing

    def _run(self) -> None:
        try:
            self._work()
        finally:
            # Nobody may wait for a thread that an error has ended.
            with self._changed:
                self._closing, self._writing = True, None
                self._jobs.clear()
                self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._writing = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._jobs or self._closing or self._buffers.lacking)
                if self._jobs:
                    self._writing = self._jobs.popleft()
                elif self._closing:
                    return
                job, size = self._writing, self._buffers.size
            self._paced_at = time.thread_time()
            if job is None:
                self._prepare(size)
                continue
            self._write(job)
            with self._changed:
                self._buffers.give(job.buffer)
            # Nothing may hold the memory while this thread waits for the next job.
            del job

    def _prepare(self, size: int) -> None:
        buffer = touched(size, self.pace)
        with self._changed:
            if buffer is None:
                self._buffers.clear()
            else:
                self._buffers.give(buffer)
