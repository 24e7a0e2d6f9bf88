"""The stored sequences of one model: which of them a prompt begins like, reading them and writing them.

Files are grouped by partition: the model's fingerprint and a cache salt, hashed together. So a prompt meets only files
of its own salt and of a model that computes the same bits. The tokens of each file are kept in memory. Before a search
the folder is listed again, since other processes add and remove files.

All methods block but `covered`, and may be called from any thread.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from puna_llama_cpp.kv_store import file_format
from puna_llama_cpp.kv_store.file_format import DamagedFileError, Header, Secret, State
from puna_llama_cpp.kv_store.folder import CacheFolder, NoRoomError

log = logging.getLogger(__name__)


_MAX_PARTITIONS: Final = 1000
"""Partitions whose tokens are kept in memory. Others are read again when a prompt needs them."""
_HEAD_TOKENS: Final = 32
"""Tokens at the beginning that must be equal. Sequences that share fewer serve each other no more than memory does."""


@dataclass(frozen=True, slots=True)
class StoredSequence:
    """A stored sequence that a prompt begins like."""

    partition: str
    name: str
    header: Header
    tokens: NDArray[np.int32]
    common: int
    """Leading tokens of the prompt that it can serve."""


@dataclass(frozen=True, slots=True)
class _Entry:
    header: Header
    tokens: NDArray[np.int32]
    head: bytes
    """The first _HEAD_TOKENS tokens. Comparing them is fifty times as fast as finding out how many are equal."""

    @classmethod
    def of(cls, header: Header, tokens: NDArray[np.int32]) -> Self:
        return cls(header, tokens, _head(tokens))


class SequenceStore:
    """The files of one model."""

    def __init__(
        self, folder: CacheFolder, fingerprint: bytes, secret: Secret | None, shortest_cut: Callable[[int], int]
    ) -> None:
        """`shortest_cut` returns how many tokens must be used of a stored state of so many: see `Context`."""
        self._folder, self._fingerprint, self._secret, self._shortest_cut = folder, fingerprint, secret, shortest_cut
        self._lock = threading.Lock()
        self._partitions: dict[str, dict[str, _Entry]] = {}
        self._warned = False

    def find(self, tokens: Sequence[int], salt: str, reusable: int) -> StoredSequence | None:
        """Return the stored sequence that serves most of a prompt, of which `reusable` leading tokens may be served."""
        partition = self._partition(salt)
        entries = self._refresh(partition)
        prompt = np.asarray(tokens[:reusable], np.int32)
        best = None
        head = _head(prompt)
        for name, entry in entries.items():
            if entry.head != head:
                continue
            common = common_length(entry.tokens, prompt)
            if common < self._shortest_cut(len(entry.tokens)):
                continue
            # Among equals the smaller file is read sooner.
            if best is None or (common, -len(entry.tokens)) > (best.common, -len(best.tokens)):
                best = StoredSequence(partition, name, entry.header, entry.tokens, common)
        return best

    def covered(self, tokens: Sequence[int], salt: str) -> int:
        """Return how many leading tokens some file has, by what is known without looking at the disk."""
        with self._lock:
            entries = list(self._partitions.get(self._partition(salt), {}).values())
        if not entries:
            return 0
        array = np.asarray(tokens, np.int32)
        head = _head(array)
        common = ((common_length(entry.tokens, array), len(entry.tokens)) for entry in entries if entry.head == head)
        return max((each for each, length in common if each >= self._shortest_cut(length)), default=0)

    def read(self, stored: StoredSequence, check: Callable[[], None]) -> State | None:
        """Return the state of a stored sequence; None if the file is gone or damaged. A damaged file is removed.

        `check` may raise to give up.
        """
        try:
            with self._folder.open(stored.partition, stored.name) as file:
                state = file_format.read_state(file, stored.partition, stored.tokens, self._secret, check)
        # Another process needed the room, or this one has none.
        except (OSError, MemoryError):
            return None
        except DamagedFileError as error:
            self._drop(stored.partition, stored.name, error)
            return None
        self._folder.touch(stored.partition, stored.name)
        return state

    def drop(self, stored: StoredSequence) -> None:
        """Remove a stored sequence that llama.cpp does not accept."""
        self._drop(stored.partition, stored.name, DamagedFileError("llama.cpp does not accept its state"))

    def write(
        self, tokens: list[int], salt: str, state: State, prefill_token_seconds: float, check: Callable[[], None]
    ) -> bool:
        """Store a sequence, and return whether it is on disk now. `check` may raise to give up.

        Shorter sequences that the new one serves as well are removed. Raises what `check` raises.
        """
        partition = self._partition(salt)
        array = np.asarray(tokens, np.int32)
        name = self._digest(array.tobytes())
        entries = self._refresh(partition)
        if name in entries:
            self._folder.touch(partition, name)
            return True
        header = file_format.new_header(
            partition, len(array), len(state), prefill_token_seconds, encrypted=self._secret is not None
        )
        try:
            with self._folder.create(partition, name, file_format.file_bytes(header)) as file:
                file_format.write(file, header, array, state, self._secret, check)
        except FileExistsError:
            return True  # another process is writing the same sequence
        except (OSError, NoRoomError) as error:
            # A folder that is too small would give a line for each sequence.
            level, self._warned = (logging.DEBUG if self._warned else logging.WARNING), True
            log.log(level, "a sequence of %d tokens is not kept on disk: %s", len(array), error)
            return False
        self._warned = False
        with self._lock:
            self._partitions.setdefault(partition, {})[name] = _Entry.of(header, array)
        for other, entry in entries.items():
            served = self._shortest_cut(len(array)) <= len(entry.tokens) < len(array)
            if served and common_length(entry.tokens, array) == len(entry.tokens):
                self._remove(partition, other)
        return True

    def refresh(self, salt: str) -> None:
        """Read which files of a salt there are."""
        self._refresh(self._partition(salt))

    def _refresh(self, partition: str) -> dict[str, _Entry]:
        names = self._folder.list_names(partition)
        with self._lock:
            known = self._partitions.get(partition, {})
        entries = {name: entry for name, entry in known.items() if name in names}
        for name in names - entries.keys():
            try:
                entries[name] = self._open(partition, name)
            except OSError:
                continue
            except DamagedFileError as error:
                self._drop(partition, name, error)
        with self._lock:
            # Clients choose the salts, so partitions without files take no memory, and those of long ago are forgotten.
            self._partitions.pop(partition, None)
            if entries:
                self._partitions[partition] = entries
            while len(self._partitions) > _MAX_PARTITIONS:
                del self._partitions[next(iter(self._partitions))]
        return dict(entries)

    def _open(self, partition: str, name: str) -> _Entry:
        """Read the tokens of a file. Raises OSError and DamagedFileError."""
        with self._folder.open(partition, name) as file:
            header, tokens = file_format.read_tokens(file, partition, self._secret)
        # Noticed at once: nothing would read such a file, and the sequence whose name it has would not be stored again.
        if self._digest(tokens.tobytes()) != name:
            raise DamagedFileError("it has other tokens than its name says")
        return _Entry.of(header, tokens)

    def _drop(self, partition: str, name: str, error: DamagedFileError) -> None:
        log.warning("the stored sequence %s/%s is removed: %s", partition, name, error)
        self._remove(partition, name)

    def _remove(self, partition: str, name: str) -> None:
        self._folder.remove(partition, name)
        with self._lock:
            self._partitions.get(partition, {}).pop(name, None)

    def _partition(self, salt: str) -> str:
        return self._digest(self._fingerprint + salt.encode("utf-8", "surrogatepass"))

    def _digest(self, data: bytes) -> str:
        found = (
            self._secret.digest(data) if self._secret is not None else hashlib.blake2b(data, digest_size=16).digest()
        )
        return found.hex()


def _head(tokens: NDArray[np.int32]) -> bytes:
    return tokens[:_HEAD_TOKENS].tobytes()


def common_length(left: NDArray[np.int32], right: NDArray[np.int32]) -> int:
    """Return how many leading tokens are equal."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length
