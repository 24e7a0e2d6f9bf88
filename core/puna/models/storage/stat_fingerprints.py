"""Stat fingerprints: the size, times and inode that a blob's file had when its digest was last computed.

Hashing a large blob takes as long as reading it, half a minute for 40 GB. Every write to a file changes its ctime, and
a replaced file has another inode. So a file whose `stat` still equals its fingerprint has not been written to since,
and its digest still holds. The reverse is not true: a changed fingerprint only means that the file must be hashed
again. A fingerprint does not notice a disk that returns other bytes than were written; `puna doctor` reads everything.

A fingerprint also records where a blob's bytes are. `puna import` makes a blob of a file elsewhere by a hard or a
symbolic link. Such a file belongs to the user, so its times are never set; the time of the fingerprint's own file says
when the blob was last used.

Fingerprints are files in `.puna/seals`, one for each blob, where Ollama does not look. They are a cache: a lost or
unreadable one costs one reading of the blob.
"""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

from puna.go import json_text
from puna.models.storage import durable

TEMPORARY_PREFIX: Final = ".new-"
SMALL: Final = 16 << 20
"""Bytes. Smaller blobs have no fingerprints, since hashing them takes at most 15 ms."""


class Place(Enum):
    """Where a blob's bytes are."""

    STORE = ""
    HARD_LINK = "hard link"
    SYMBOLIC_LINK = "symbolic link"


class FileState(Enum):
    """The state of a blob's file compared with its fingerprint."""

    UNKNOWN = "unknown"
    """There is no fingerprint."""
    UNCHANGED = "unchanged"
    CHANGED = "changed"
    """The file or its times were changed. Only its digest can tell whether the content is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatFingerprint:
    """The `stat` of a file at one moment. Times are nanoseconds since 1970.

    The device number is left out: it may change when the machine restarts, and the inode identifies the file.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    origin: str = ""
    """The path of a file that was imported in place; empty for the store's own."""
    place: str = Place.STORE.value

    @classmethod
    def of(cls, path: Path, *, origin: str = "", place: Place = Place.STORE) -> "StatFingerprint":
        """Take the fingerprint of a file. Raises OSError."""
        status = path.stat()
        return cls(
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            inode=status.st_ino,
            origin=origin,
            place=place.value,
        )


_FIELDS: Final = frozenset(each.name for each in fields(StatFingerprint))


class StatFingerprints:
    """The fingerprints of one store's blobs."""

    def __init__(self, folder: Path, check_format: Callable[[], object] = lambda: None) -> None:
        """`check_format` raises OSError if a newer version of Puna wrote the store. It is called before each change."""
        self.folder = folder
        self._check_format = check_format

    def read(self, blob: Path) -> StatFingerprint | None:
        """Return a blob's fingerprint; None if it has none, or if another file has since taken the blob's place."""
        try:
            content = self._content(blob)
            # A newer version may have written more fields.
            fingerprint = StatFingerprint(**{name: each for name, each in content.items() if name in _FIELDS})
        except (OSError, ValueError, TypeError):
            return None
        return fingerprint if self._belongs(fingerprint, blob) else None

    def _content(self, blob: Path) -> Mapping[str, Any]:
        """Return the content of a fingerprint's file. Raises OSError and ValueError."""
        content = json_text.loads((self.folder / blob.name).read_bytes())
        if not isinstance(content, Mapping):
            raise ValueError("it is not a JSON object")
        return content

    def _belongs(self, fingerprint: StatFingerprint, blob: Path) -> bool:
        if fingerprint.place == Place.SYMBOLIC_LINK.value:
            return blob.is_symlink()
        # A link in place of a file means that another import took the blob's name.
        if blob.is_symlink():
            return False
        return fingerprint.place == Place.STORE.value or not blob.exists() or blob.stat().st_ino == fingerprint.inode

    def state(self, blob: Path) -> FileState:
        """Compare a blob with its fingerprint. Raises OSError when the file is missing."""
        fingerprint = self.read(blob)
        if fingerprint is None:
            return FileState.UNKNOWN
        # Origin and place are copied, so that equality compares only the `stat`.
        now = replace(StatFingerprint.of(blob), origin=fingerprint.origin, place=fingerprint.place)
        return FileState.UNCHANGED if now == fingerprint else FileState.CHANGED

    def write(self, blob: Path, *, origin: str = "", place: Place = Place.STORE) -> None:
        """Store the fingerprint of a blob whose digest was just verified. Raises OSError."""
        self._write(blob, StatFingerprint.of(blob, origin=origin, place=place))

    def renew(self, blob: Path) -> None:
        """Store a new fingerprint of a blob whose digest was just verified, keeping its origin.

        Small blobs have none. Errors are ignored, since a store may be read-only.
        """
        # A store may be read-only. The cost is that the blob is hashed again.
        with contextlib.suppress(OSError):
            fingerprint = self.read(blob)
            if fingerprint is not None:
                now = StatFingerprint.of(blob)
                self._write(blob, replace(now, origin=fingerprint.origin, place=fingerprint.place))
            elif blob.stat().st_size >= SMALL:
                self.write(blob)

    def _write(self, blob: Path, fingerprint: StatFingerprint) -> None:
        self._check_format()
        target = self.folder / blob.name
        content: Mapping[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            content = self._content(blob)
        with durable.temporary(self.folder, TEMPORARY_PREFIX) as (path, file):
            file.write(json.dumps({**content, **asdict(fingerprint)}).encode())
            durable.replace_atomically(file, path, target)

    def touch(self, blob: Path) -> bool:
        """Record that a blob whose file lies elsewhere is in use. Return False for the store's own blobs."""
        fingerprint = self.read(blob)
        if fingerprint is None or fingerprint.place == Place.STORE.value:
            return False
        with contextlib.suppress(OSError):
            # The fingerprint's own file has the time of the last use, since the user's file must not be touched.
            os.utime(self.folder / blob.name)
        return True

    def age(self, blob: Path) -> float:
        """Return when a file that lies elsewhere was last used, in seconds since 1970; 0 for other blobs."""
        fingerprint = self.read(blob)
        if fingerprint is None or fingerprint.place == Place.STORE.value:
            return 0.0
        try:
            return (self.folder / blob.name).stat().st_mtime
        except FileNotFoundError:  # another process has just removed the blob
            return 0.0

    def remove(self, blob: Path) -> None:
        """Remove a fingerprint. A missing one is ignored."""
        with contextlib.suppress(OSError):
            self._check_format()
            (self.folder / blob.name).unlink()

    def remove_orphans(self, blobs: Path) -> None:
        """Remove the fingerprints of blobs that no longer exist."""
        for name in self.names():
            if not os.path.lexists(blobs / name):
                self.remove(blobs / name)

    def names(self) -> list[str]:
        """Return the file names of all blobs that have fingerprints."""
        try:
            return sorted(entry.name for entry in os.scandir(self.folder) if not entry.name.startswith("."))
        except OSError:
            return []
