"""The progress of creating, pulling and pushing a model, as clients see it."""

from dataclasses import dataclass
from enum import Enum, auto


class JobPhase(Enum):
    """The current phase of a job. Programs read it, and people read the status beside it."""

    READING_MANIFEST = auto()
    DOWNLOADING = auto()
    UPLOADING = auto()
    VERIFYING = auto()
    READING_FILES = auto()
    CONVERTING = auto()
    QUANTIZING = auto()
    WRITING_LAYERS = auto()
    WRITING_MANIFEST = auto()
    REMOVING_BLOBS = auto()
    DONE = auto()


@dataclass(frozen=True, slots=True)
class TransferStep:
    """One line of progress. A client shows lines with the same status and digest in one place."""

    phase: JobPhase
    status: str
    """Ollama's words, which its clients show."""
    digest: str = ""
    total: int = 0
    """Bytes; 0 if unknown."""
    completed: int = 0
