"""Storing a new batch, request by request."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from puna.batch import batch as batches
from puna.batch.batch import Batch, BatchConfig
from puna.batch.folder import Preparation, flush
from puna.batch.quota import Quota
from puna.batch.records import Record
from puna.errors import InvalidRequestError, TooLargeError
from puna.limits import Limits
from puna.models.storage.durable import check_room


class BatchWriter:
    """A batch that is being stored. Its methods block."""

    def __init__(
        self, parent: Path, config: BatchConfig, limits: Limits, quota: Quota, on_finish: Callable[[Batch], None]
    ) -> None:
        self._config = config
        self._limits = limits
        self._quota = quota
        self._on_finish = on_finish
        self._preparation = Preparation(parent, config.id)
        self._requests = self._preparation.create(batches.REQUESTS)
        self._ids: set[bytes] = set()
        """Digests of the custom ids, which may be long."""
        self._size = 0
        self._published = False

    @property
    def number(self) -> int:
        """Number of the next request, from 1."""
        return len(self._ids) + 1

    def add(self, custom_id: str, payload: bytes, *, alone: bool) -> None:
        """Add a request. `alone`: whether it runs as one call that shares the model with no other.

        Raises InvalidRequestError for a custom id that is taken, TooLargeError for a limit, and OSError.
        """
        record = Record(0, self.number, alone, payload)
        digest = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._ids:
            raise InvalidRequestError(
                f"request {self.number}: the custom id {custom_id!r} is that of an earlier request",
                field="item.custom_id",
            )
        self._bound(self.number, self._limits.max_batch_requests, "requests", "PUNA_MAX_BATCH_REQUESTS")
        self._bound(self._size + record.size, self._limits.max_file_bytes, "bytes", "PUNA_MAX_FILE_BYTES")
        self._quota.add(self._config.owner, record.size)
        self._size += record.size
        check_room(self._preparation.folder, record.size)
        self._requests.write(record.encode())
        self._ids.add(digest)

    def _bound(self, value: int, most: int, unit: str, setting: str) -> None:
        if value > most:
            text = f"the batch has more than {most} {unit}; {setting} changes the limit"
            raise TooLargeError(text, limit=most, setting=setting)

    def flush(self, number: int | None = None) -> None:
        """Flush the requests to the disk. InvalidRequestError: there are none, or another number than this."""
        if not self._ids:
            raise InvalidRequestError("the batch has no request", field="item")
        if number is not None and number != len(self._ids):
            text = f"the batch has {len(self._ids)} requests and not {number}"
            raise InvalidRequestError(text, field="config.request_count")
        flush(self._requests)

    def finish(self) -> Batch:
        """Have the batch exist, and return it. Its requests must have been flushed."""
        config = replace(self._config, total=len(self._ids), request_bytes=self._size)
        with self._preparation.create(batches.DESCRIPTION) as file:
            file.write(json.dumps(asdict(config)).encode())
            flush(file)
        new = Batch(config, self._preparation.publish(), has_result=bytearray(config.total))
        self._published = True
        self._on_finish(new)
        return new

    def close(self) -> None:
        """Close the batch, and remove it unless it was finished."""
        self._requests.close()
        if not self._published:
            self._preparation.discard()
            self._quota.remove(self._config.owner, self._size)
