"""The batches on the disk.

Theory. A batch is a folder with four files. `batch.json` and `requests` are written before the batch exists and never
change. `results` grows by one record per result; each is flushed to the disk before it counts, so that a result
which a client has seen is never lost. `state.json` is replaced when the first request starts and when the batch ends.

The counts of a batch that has not ended are not in `state.json`: they are computed from `results` when the folder is
opened. So there is one truth for "request 7 has a result", and no moment at which two files can contradict each other.
A request without a record is run again. `add_result` refuses a second record for a request.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from puna.batch import batch as batches
from puna.batch import records
from puna.batch.batch import Batch, BatchConfig
from puna.batch.folder import Folder, published, remove
from puna.batch.quota import Quota, check_number
from puna.batch.records import Record
from puna.batch.writer import BatchWriter
from puna.errors import InvalidRequestError, NotFoundError
from puna.limits import Limits

log = logging.getLogger(__name__)

READ_BYTES: Final = 1 << 18
"""Bytes of results after which a reader is given what has been read."""
_FOLDER: Final = "batches"
_LONGEST_ID: Final = 255


class BatchStore:
    """All batches. Its methods block; they may be called from any thread."""

    def __init__(self, folder: Folder, limits: Limits, quota: Quota, clock: Callable[[], int] = time.time_ns) -> None:
        """`clock` returns nanoseconds since 1970."""
        self._folder = folder
        self._clock = clock
        self._batches: dict[str, Batch] = {}
        self._lock = threading.RLock()
        """Held while a batch changes."""
        self.limits = limits
        self.quota = quota

    def load(self) -> None:
        """Read all batches, and remove what writers that died have left."""
        for each in published(self._folder.open() / _FOLDER):
            try:
                found = batches.read(each)
                self._recover(found)
            except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
                log.error("the batch in %s cannot be read: %s", each, type(error).__name__)
                continue
            self._batches[found.id] = found
            self.quota.force(found.config.owner, found.size)

    def _recover(self, found: Batch) -> None:
        for left in found.folder.glob(".*"):
            left.unlink()
        if found.ended:
            return
        found.has_result = bytearray(found.config.total)
        progress = found.progress
        progress.completed = progress.failed = progress.answer_bytes = progress.error_bytes = 0
        for record in records.recover(found.folder / batches.RESULTS):
            found.has_result[record.number - 1] = 1
            found.results = record.index
            found.count(record.size, failed=record.flag)
        # The server died between the last result and the new state.
        if all(found.has_result):
            self.end(found, batches.DONE)

    # ---- creation ----------------------------------------------------------------------------------------------------

    def writer(
        self, owner: str, *, local: bool, long_errors: bool, window: float, metadata: Mapping[str, str], data: bytes
    ) -> BatchWriter:
        """Begin a batch. The caller closes the writer. `window` is the completion window in seconds.

        Raises InvalidRequestError, TooLargeError and OSError.
        """
        owned = len(self.listed(owner))
        most, most_of_key = self.limits.max_batches, self.limits.max_batches_per_key
        if owner:
            check_number("batches", owned, most_of_key, "PUNA_MAX_BATCHES_PER_KEY", " of this API key")
        check_number("batches", len(self._batches), most, "PUNA_MAX_BATCHES")
        if not 0 < window <= self.limits.max_batch_seconds:
            raise InvalidRequestError(
                f"completion_window must be longer than 0 and at most {self.limits.max_batch_seconds:g} s",
                field="config.completion_window",
            )
        now = self._clock()
        config = BatchConfig(
            id=f"batch_{secrets.token_hex(16)}",
            owner=owner,
            local=local,
            long_errors=long_errors,
            create_ns=now,
            expire_ns=now + int(window * 1e9),
            metadata=dict(metadata),
            client_data=data.hex(),
        )
        return BatchWriter(self._folder.open() / _FOLDER, config, self.limits, self.quota, self._add)

    def _add(self, new: Batch) -> None:
        self._batches[new.id] = new

    # ---- lookup ------------------------------------------------------------------------------------------------------

    def get(self, owner: str, id_: str) -> Batch:
        """Return a batch. Raises NotFoundError, also for the batch of another owner."""
        found = self._batches.get(id_)
        if found is None or found.config.owner != owner:
            raise NotFoundError(f"there is no batch {id_[:_LONGEST_ID]!r}")
        return found

    def listed(self, owner: str) -> list[Batch]:
        """Return the batches of an owner, newest first."""
        found = (each for each in list(self._batches.values()) if each.config.owner == owner)
        return sorted(found, key=lambda each: (each.config.create_ns, each.id), reverse=True)

    def unfinished(self) -> list[Batch]:
        """Return the batches that have not ended, oldest first."""
        found = (each for each in list(self._batches.values()) if not each.ended)
        return sorted(found, key=lambda each: (each.config.create_ns, each.id))

    def kept_until(self, batch: Batch) -> float:
        """Return when a batch that has ended is removed, in seconds since 1970."""
        return batch.progress.end_ns / 1e9 + self.limits.max_kept_seconds

    # ---- results -----------------------------------------------------------------------------------------------------

    def start(self, batch: Batch) -> None:
        """Note that the first request of a batch starts."""
        with self._lock:
            if batch.progress.state == batches.QUEUED:
                batch.progress.state, batch.progress.start_ns = batches.RUNNING, self._clock()
                batch.save()

    def add_result(self, batch: Batch, number: int, payload: bytes, *, failed: bool) -> bool:
        """Store the result of a request, durably. Return False if it has one, or if the batch has ended.

        Raises TooLargeError for an answer that exceeds a limit; errors are stored in any case. OSError: the disk
        failed.
        """
        return self.add_results(batch, [(number, payload)], failed=failed) == 1

    def add_results(
        self, batch: Batch, found: Sequence[tuple[int, bytes]], *, failed: bool, last: str = batches.DONE
    ) -> int:
        """Store several results, each with the number of its request. Return how many were new. See `add_result`.

        `last` is the state of the batch once each request has a result.
        """
        with self._lock:
            new = [each for each in found if not batch.ended and not batch.has_result[each[0] - 1]]
            if not new or not batch.folder.exists():
                return 0
            numbered = enumerate(new, batch.results + 1)
            encoded = [Record(index, number, failed, payload).encode() for index, (number, payload) in numbered]
            data = b"".join(encoded)
            owner = batch.config.owner
            (self.quota.force if failed else self.quota.add)(owner, len(data))
            try:
                records.append(batch.folder / batches.RESULTS, data)
            except OSError:
                self.quota.remove(owner, len(data))
                raise
            for (number, _), each in zip(new, encoded, strict=True):
                batch.has_result[number - 1] = 1
                batch.count(len(each), failed=failed)
            batch.results += len(new)
            if all(batch.has_result):
                self.end(batch, last)
            return len(new)

    def end(self, batch: Batch, state: str) -> None:
        """End a batch. Has no effect on one that has ended."""
        with self._lock:
            if batch.ended:
                return
            # Changed in memory once it is on the disk, so that a disk that fails leaves both as they were.
            old = batch.progress
            batch.progress = replace(old, state=state, end_ns=self._clock())
            try:
                if batch.folder.exists():
                    batch.save()
            except OSError:
                batch.progress = old
                raise
            batch.has_result = bytearray()

    def read_results(self, batch: Batch, offset: int, after: int, *, failed: bool | None) -> tuple[list[Record], int]:
        """Return the next results from an offset in the file of results, and the offset behind them.

        Results up to the index `after` are left out. `failed` selects errors or answers; None: both. No results, and
        the same offset, mean that no more are stored.
        """
        found: list[Record] = []
        path = batch.folder / batches.RESULTS
        if not path.exists():
            return found, offset
        with path.open("rb") as file:
            file.seek(offset)
            size = 0
            while size < READ_BYTES and (record := records.read(file)) is not None:
                # Also counts records that are left out, so that a call ends in bounded time.
                size += record.size
                offset += record.size
                if record.index > after and failed in (None, record.flag):
                    found.append(record)
        return found, offset

    def delete_results(self, batch: Batch, *, failed: bool | None) -> None:
        """Remove the errors or the answers of a batch that has ended; None: both. Raises InvalidRequestError."""
        with self._lock:
            if not batch.ended:
                raise InvalidRequestError("the batch has not ended; CancelBatch ends it", field="id")
            path = batch.folder / batches.RESULTS
            records.rewrite(path, lambda record: failed is not None and record.flag != failed)
            before, progress = batch.size, batch.progress
            if failed is not True:
                progress.answer_bytes = 0
            if failed is not False:
                progress.error_bytes = 0
            batch.save()
            self.quota.remove(batch.config.owner, before - batch.size)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def delete(self, batch: Batch) -> None:
        """Remove a batch with its requests and results."""
        with self._lock:
            if self._batches.pop(batch.id, None) is None:
                return
            remove(batch.folder)
            self.quota.remove(batch.config.owner, batch.size)
            self.end(batch, batches.CANCELLED)

    def expire(self) -> None:
        """Remove the batches that ended long ago."""
        now = self._clock() / 1e9
        for each in list(self._batches.values()):
            if each.ended and self.kept_until(each) <= now:
                self.delete(each)

    def overdue(self) -> list[Batch]:
        """Return the batches whose completion window is over."""
        now = self._clock()
        return [each for each in self.unfinished() if each.config.expire_ns <= now]
