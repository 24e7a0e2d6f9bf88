"""The requests of one batch that have no result yet, in order."""

import heapq
from typing import BinaryIO

from puna.batch import batch as batches
from puna.batch import records
from puna.batch.batch import Batch
from puna.batch.records import Record

ATTEMPTS = 3
"""How often a request is run whose backend crashes or is unavailable, before that is its result."""


class Work:
    """Hands out requests. One that was interrupted is put back and handed out first."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.running = 0
        """Number of requests that are handed out."""
        self.paused_until = 0.0
        """When the next request may run, by the event loop's clock."""
        self._returned: list[tuple[int, Record]] = []
        self._attempts: dict[int, int] = {}
        self._file: BinaryIO | None = None
        self._at_end = False

    @property
    def exhausted(self) -> bool:
        """Whether all requests have been handed out and none was put back."""
        return self._at_end and not self._returned

    def take(self) -> Record | None:
        """Return the next request without a result; None if there is none. Blocks."""
        if self._returned:
            return heapq.heappop(self._returned)[1]
        if self._at_end:
            return None
        if self._file is None:
            self._file = (self.batch.folder / batches.REQUESTS).open("rb")
        while (record := records.read(self._file)) is not None:
            has_result = self.batch.has_result
            # The batch may end at any time, and then has no list of results.
            if len(has_result) < record.number or not has_result[record.number - 1]:
                return record
        self._at_end = True
        self.close()
        return None

    def put_back(self, record: Record) -> None:
        """Take back a request that has no result."""
        heapq.heappush(self._returned, (record.number, record))

    def failed(self, record: Record) -> bool:
        """Count a failed attempt; return whether the request should be run again."""
        attempts = self._attempts[record.number] = self._attempts.get(record.number, 0) + 1
        return attempts < ATTEMPTS

    def close(self) -> None:
        """Close the file of requests."""
        if self._file is not None:
            self._file.close()
            self._file = None
