"""Which sequences of a model go to the disk and come back, when, and on which thread.

Saving. A sequence leaves memory when another takes its slot and when the model is unloaded. The decode thread copies
the state of the sequence, and a thread of its own writes the copy. Streams wait for the copy, so it must take a part of
a step. Fresh memory would take longer than the copy itself, so the writing thread has touched the memory before. While
the model computes, that thread takes a tenth of a core, unless another copy or a prompt waits for it. Sequences
of a model that has been idle for a while are saved in advance, so that the unloading finds little to do and a killed
process loses little. A sequence is saved only if the disk lacks enough of it: a chat that grows turn by
turn is written anew when an eighth was added, so all writes of a chat together stay within nine times its last size.

Restoring. Before a prompt is queued, a thread looks for the stored sequence that serves most of it. The file is read
only if memory has much less of the prompt, and if reading takes less time than evaluating. Both are measured: the
reading by this process, the evaluation by this process or by the one that wrote the file. The decode thread then gives
the state to the slot that the prompt takes. Everything that goes wrong ends in evaluating the prompt.

Unloading may take as long as a host has to end, which the core limits. `close` has a deadline of its own within that.
"""

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from puna_llama_cpp.kv_store.buffers import MAX_BYTES
from puna_llama_cpp.kv_store.file_format import Secret, State
from puna_llama_cpp.kv_store.fingerprint import ModelIdentity
from puna_llama_cpp.kv_store.folder import CacheFolder
from puna_llama_cpp.kv_store.store import SequenceStore, StoredSequence
from puna_llama_cpp.kv_store.writer import Job, StateWriter

log = logging.getLogger(__name__)

DEFAULT_MAX_BYTES: Final = 10 << 30
"""Bytes of all files together by default."""
MIN_TOKENS: Final = 128
"""Tokens of the shortest sequence that is stored, and the least that a file must save a prompt."""
_MIN_NEW_SHARE: Final = 1 / 8
"""The part of a sequence that the disk must lack before it is stored anew."""
IDLE_SECONDS: Final = 5.0
"""How long a model must have been idle before its sequences are saved in advance."""
_CLOSE_SECONDS: Final = 2.0
"""How long the saving at the unloading may take. The core gives a host 3 s to end."""
_MAX_BACKLOG_BYTES: Final = 512 << 20
"""Bytes of copied states that may wait to be written. The first one is always taken."""
_READER_THREADS: Final = 16
"""Threads that look for stored sequences. One of them at a time reads a file."""
_MAX_HELD_BYTES: Final = 512 << 20
"""Bytes of states that were read and wait for a slot. The first one is always read."""
_ASSUMED_BYTES_PER_SECOND: Final = 300e6
"""How fast a file is read before that was measured."""
_NEWEST_WEIGHT: Final = 0.3
"""Weight of the newest value in a moving average."""
_RETRY_FACTOR: Final = 0.9
"""Factor on the estimated time of a reading that was not worth it, so that a slow one is tried again some day."""
_MEASURED_TOKENS: Final = 64
"""Prompt tokens of a step from which its time tells the cost of a token."""


@dataclass(frozen=True, slots=True)
class DiskCacheOptions:
    """The operator's options."""

    folder: Path
    max_bytes: int
    secret: str = ""


@dataclass(frozen=True, slots=True)
class RestoredState:
    """The state of a stored sequence, for a prompt that begins like it."""

    length: int
    """Leading tokens of the prompt that it serves. The state may have more tokens."""
    state: State
    reject: Callable[[], None]
    """Tells that llama.cpp does not accept the state."""


@dataclass(frozen=True, slots=True)
class SlotContent:
    """The tokens that an idle slot of the KV cache holds."""

    slot: int
    tokens: list[int]
    salt: str
    last_used: int


class StateReader(Protocol):
    """The part of a context that the cache uses."""

    def shortest_cut(self, length: int) -> int:
        """Return how many tokens a state of `length` tokens must keep."""
        ...

    def state_bytes(self, slot: int) -> int:
        """Return the size of the copy that `state` would make."""
        ...

    def state(self, slot: int, buffer: State | None = None) -> State:
        """Return a copy of a sequence's memory, in `buffer` if it fits."""
        ...


class _DeadlineError(Exception):
    """The model is being unloaded, and there is no time for this."""


class DiskCache:
    """The KV cache of one model on disk. Methods say on which thread they run."""

    def __init__(self, context: StateReader, options: DiskCacheOptions, identity: ModelIdentity) -> None:
        """Start the threads, and open the folder on one of them."""
        self._context = context
        self._store: SequenceStore | None = None
        self._prefill_token_seconds = 0.0
        self._read_bytes_per_second = _ASSUMED_BYTES_PER_SECOND
        self._held: dict[tuple[str, str], weakref.ref[State]] = {}
        """The states that were read and are still in use, by the partitions and names of their files."""
        self._deadline: float | None = None
        """When the saving at the unloading ends; None: the model is in use."""
        self._reading = threading.Lock()
        # Many threads, so that no prompt waits for a file that it does not need.
        self._reader = ThreadPoolExecutor(_READER_THREADS, "kv-read")
        self._opened: Future[None] = self._reader.submit(self._open, options, identity)
        self.writer = StateWriter(self._write)

    def _open(self, options: DiskCacheOptions, identity: ModelIdentity) -> None:
        try:
            folder = CacheFolder(options.folder, options.max_bytes)
            secret = Secret(options.secret) if options.secret else None
            fingerprint = identity.fingerprint(self._check_closing)
        except (OSError, ValueError) as error:
            log.warning("KV caches are not kept on disk: %s", error)
        except _DeadlineError:
            pass  # the model is unloaded already
        else:
            self._store = SequenceStore(folder, fingerprint, secret, self._context.shortest_cut)

    # ---- restoring: the event loop, and the thread that reads --------------------------------------------------------

    async def find(
        self, tokens: list[int], salt: str, reusable: int, cached: Callable[[], int]
    ) -> RestoredState | None:
        """Return the state that serves most of a prompt; None if evaluating is as fast.

        `reusable`: how many leading tokens may be restored. `cached` returns how many the memory has, from any thread.
        """
        if reusable < MIN_TOKENS or tokens[0] < 0:
            return None
        loop = asyncio.get_running_loop()
        try:
            finding = loop.run_in_executor(self._reader, self._find, tokens, salt, reusable, cached)
        except RuntimeError:  # the model was unloaded, and the thread takes no more work
            return None
        with suppress(_DeadlineError):
            return await finding
        return None

    def _find(self, tokens: list[int], salt: str, reusable: int, cached: Callable[[], int]) -> RestoredState | None:
        self._opened.result()
        self._check_closing()
        if (store := self._store) is None:
            return None
        # Ids of images mean nothing in another process.
        text = next((index for index, token in enumerate(tokens) if token < 0), len(tokens))
        prompt = tokens[: min(reusable, text)]
        self.writer.finish(prompt, salt, cached() + MIN_TOKENS)
        self._check_closing()
        found = store.find(prompt, salt, len(prompt))
        if found is None or not self._pays(found, found.common - cached()):
            return None
        # One file at a time: a disk reads two at once no sooner. Prompts that need the same file share it.
        with self._reading:
            state = self._read(store, found, cached)
        if state is None:
            return None
        return RestoredState(found.common, state, lambda: store.drop(found))

    def _pays(self, found: StoredSequence, gain: int) -> bool:
        """Return whether reading a file takes less time than evaluating the `gain` tokens that it saves."""
        if gain < MIN_TOKENS:
            return False
        token_seconds = self._prefill_token_seconds or found.header.prefill_token_seconds
        reading = found.header.state_bytes / self._read_bytes_per_second
        if token_seconds and reading >= gain * token_seconds:
            self._read_bytes_per_second /= _RETRY_FACTOR
            return False
        return True

    def _read(self, store: SequenceStore, found: StoredSequence, cached: Callable[[], int]) -> State | None:
        """Read a state, or take it from another prompt that waits with it."""
        self._check_closing()
        held = {key: state for key, each in self._held.items() if (state := each()) is not None}
        self._held = {key: self._held[key] for key in held}
        if (key := (found.partition, found.name)) in held:
            return held[key]
        # Another prompt may have brought the state into memory since the first look.
        if found.common - cached() < MIN_TOKENS:
            return None
        if held and sum(map(len, held.values())) + found.header.state_bytes > _MAX_HELD_BYTES:
            return None
        began = time.perf_counter()
        state = store.read(found, self._check_closing)
        if state is not None:
            speed = len(state) / (time.perf_counter() - began)
            self._read_bytes_per_second += _NEWEST_WEIGHT * (speed - self._read_bytes_per_second)
            self._held[key] = weakref.ref(state)
            log.debug("read %d tokens of a stored sequence", len(found.tokens))
        return state

    # ---- saving: the decode thread, and the thread that writes -------------------------------------------------------

    def observe_prefill(self, tokens: int, seconds: float) -> None:
        """Record the duration of a step with prompt tokens alone. Call it on the decode thread."""
        if tokens >= _MEASURED_TOKENS:
            average, value = self._prefill_token_seconds, seconds / tokens
            self._prefill_token_seconds = average + _NEWEST_WEIGHT * (value - average) if average else value

    def expect(self, slot: int, length: int) -> None:
        """Have memory prepared for the copy of a sequence that has ended. Call it on the decode thread."""
        if length < MIN_TOKENS or (self._store is None and self._opened.done()):
            return
        self.writer.expect(self._context.state_bytes(slot))

    def save(self, content: SlotContent) -> bool:
        """Copy the state of a slot and have it written, if the disk lacks it. Return whether it was copied.

        Call it on the decode thread, while the slot still holds its tokens.
        """
        if not self._lacks(content.tokens, content.salt):
            return False
        waiting = self.writer.unwritten()
        if any(job.salt == content.salt and job.tokens == content.tokens for job in waiting):
            return False
        if waiting and sum(len(job.state) for job in waiting) > _MAX_BACKLOG_BYTES:
            return False
        if self.writer.busy and self._context.state_bytes(content.slot) > MAX_BYTES:
            return False
        if (job := self._copy(content)) is None:
            return False
        self.writer.put(job)
        return True

    def _copy(self, content: SlotContent) -> Job | None:
        try:
            state = self._context.state(content.slot, self.writer.take_buffer())
        except MemoryError:
            return None
        return Job(content.tokens, content.salt, state) if len(state) else None

    def save_one(self, contents: Sequence[SlotContent]) -> bool:
        """Save the newest of some slots that the disk lacks; return False if none was copied. See `save`."""
        if any(self.save(each) for each in _newest_first(contents)):
            return True
        self.writer.release_buffers()  # an idle model keeps no memory for this
        return False

    def _lacks(self, tokens: list[int], salt: str) -> bool:
        """Return whether enough of a sequence is not on disk, as far as is known."""
        # A sequence with images is not stored: their ids mean nothing in another process.
        if len(tokens) < MIN_TOKENS or min(tokens) < 0:
            return False
        if (store := self._store) is None:
            return not self._opened.done()
        return len(tokens) - store.covered(tokens, salt) >= max(MIN_TOKENS, len(tokens) * _MIN_NEW_SHARE)

    def _write(self, job: Job) -> None:
        self._opened.result()
        if (store := self._store) is None:
            return
        # Sequences that other processes have stored meanwhile need not be written again.
        store.refresh(job.salt)
        if not self._lacks(job.tokens, job.salt):
            return
        try:
            if store.write(job.tokens, job.salt, job.state, self._prefill_token_seconds, self._check_writing):
                log.debug("stored %d tokens", len(job.tokens))
        except _DeadlineError:
            log.info("a sequence of %d tokens is not kept on disk: the time is over", len(job.tokens))

    def _check_writing(self) -> None:
        self.writer.pace()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise _DeadlineError

    def _check_closing(self) -> None:
        if self._deadline is not None:
            raise _DeadlineError

    # ---- unloading ---------------------------------------------------------------------------------------------------

    def close(self, contents: Sequence[SlotContent]) -> None:
        """Save what is left, as far as the time allows, and end the threads. The decode thread must have ended.

        A second call does nothing: the context from which a sequence would be saved may be freed.
        """
        if self._deadline is not None:
            return
        self._deadline = deadline = time.monotonic() + _CLOSE_SECONDS
        self._reader.shutdown(wait=False)
        self.writer.close()
        if (store := self._store) is not None:
            for content in _newest_first(contents):
                if time.monotonic() > deadline:
                    break
                # Another process may have removed the file of a sequence that was in memory all the time.
                store.refresh(content.salt)
                if self._lacks(content.tokens, content.salt) and (job := self._copy(content)):
                    self._write(job)
        self._reader.shutdown()


def _newest_first(contents: Sequence[SlotContent]) -> list[SlotContent]:
    return sorted(contents, key=lambda each: -each.last_used)
