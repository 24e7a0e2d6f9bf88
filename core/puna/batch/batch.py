"""The state of a batch, in memory and in its folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from puna.batch.folder import write_json

DESCRIPTION: Final = "batch.json"
"""File of a BatchConfig, which never changes."""
STATE: Final = "state.json"
"""File of a BatchProgress. It is missing until the first request starts."""
REQUESTS: Final = "requests"
"""File of records, one for each request."""
RESULTS: Final = "results"
"""File of records, one for each result."""

QUEUED: Final = "queued"
RUNNING: Final = "running"
DONE: Final = "done"
CANCELLED: Final = "cancelled"
EXPIRED: Final = "expired"
REVOKED: Final = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """The part of a batch that is known when it is created."""

    id: str
    owner: str
    """Id of the API key that created it; empty: it was created without one."""
    local: bool
    """Whether its creator was a program of the server's own account."""
    long_errors: bool
    """Whether errors have the texts that clients of the REST API read."""
    create_ns: int
    """Nanoseconds since 1970, as all times here."""
    expire_ns: int
    """End of the completion window."""
    metadata: Mapping[str, str]
    client_data: str
    """The client's data in hexadecimal digits."""
    total: int = 0
    request_bytes: int = 0
    """Size of the file of requests."""


@dataclass(slots=True, kw_only=True)
class BatchProgress:
    """The part of a batch that changes."""

    state: str = QUEUED
    start_ns: int = 0
    end_ns: int = 0
    completed: int = 0
    """Number of answers."""
    failed: int = 0
    """Number of errors."""
    answer_bytes: int = 0
    error_bytes: int = 0


@dataclass(slots=True)
class Batch:
    """A batch."""

    config: BatchConfig
    folder: Path
    progress: BatchProgress = field(default_factory=BatchProgress)
    has_result: bytearray = field(default_factory=bytearray)
    """For each request 1 if it has a result. Empty once the batch has ended."""
    results: int = 0
    """Index of the newest result."""
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the file of the progress that only a newer version knows. They stay in the file."""

    @property
    def id(self) -> str:
        """Id of the batch."""
        return self.config.id

    @property
    def ended(self) -> bool:
        """Whether no further result will come."""
        return self.progress.end_ns > 0

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.config.request_bytes + self.progress.answer_bytes + self.progress.error_bytes

    def count(self, size: int, *, failed: bool) -> None:
        """Count a stored result of `size` bytes."""
        if failed:
            self.progress.failed += 1
            self.progress.error_bytes += size
        else:
            self.progress.completed += 1
            self.progress.answer_bytes += size

    def save(self) -> None:
        """Write the progress to the folder, atomically and durably."""
        write_json(self.folder / STATE, {**self.unknown, **asdict(self.progress)})


def read(folder: Path) -> Batch:
    """Read a batch without its records. Raises OSError, ValueError, TypeError and KeyError."""
    config = BatchConfig(**known(BatchConfig, json.loads((folder / DESCRIPTION).read_bytes())))
    state = folder / STATE
    values: dict[str, Any] = json.loads(state.read_bytes()) if state.exists() else {}
    progress = known(BatchProgress, values)
    unknown = {name: value for name, value in values.items() if name not in progress}
    return Batch(config, folder, BatchProgress(**progress), unknown=unknown)


def known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a class has fields for. A newer version may have written more."""
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
