"""The progress of creating, pulling and pushing a model, as clients see it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransferStep:
    """One line of progress. A client shows lines with the same status and digest in one place."""

    status: str
    digest: str = ""
    total: int = 0
    """Bytes; 0 if unknown."""
    completed: int = 0
