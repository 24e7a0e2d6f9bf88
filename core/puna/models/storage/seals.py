"""Seals: what a blob's file looked like when its digest was last computed.

A file whose size, times and inode are still those of its seal has not been written to since, so that nobody needs to
read gigabytes to trust it. Seals also say which blobs are files that lie elsewhere. They stand in `.puna/seals`, one
file for each blob, where the reference does not look; a seal that is lost or wrong costs one reading of the blob.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from puna.go import json_text
from puna.models.storage import durable

TEMPORARY_PREFIX: Final = ".new-"
SMALL: Final = 16 << 20
"""Bytes. Smaller blobs have no seals: reading them takes 15 ms."""


class Place(Enum):
    """Where a blob's bytes are."""

    STORE = ""
    HARD_LINK = "hard link"
    SYMBOLIC_LINK = "symbolic link"


class State(Enum):
    """What a seal says of its blob."""

    UNSEALED = "unsealed"
    INTACT = "intact"
    TOUCHED = "touched"
    """Something happened to the file; only its digest can tell whether it is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A file as it was. Times are nanoseconds since 1970.

    The number of the device is left out: it changes with the next start of the machine, and the inode says enough.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    origin: str = ""
    """The path of a file that was registered where it lay."""
    place: str = Place.STORE.value

    @classmethod
    def of(cls, path: Path, *, origin: str = "", place: Place = Place.STORE) -> "Seal":
        """Take down how a file looks. Raises OSError."""
        status = path.stat()
        return cls(
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            inode=status.st_ino,
            origin=origin,
            place=place.value,
        )


class Seals:
    """The seals of one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, blob: Path) -> Seal | None:
        """Return a blob's seal; None if it has none, or one of a file whose place the blob's has taken."""
        try:
            seal = Seal(**json_text.loads((self.folder / blob.name).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return seal if self._belongs(seal, blob) else None

    def _belongs(self, seal: Seal, blob: Path) -> bool:
        if seal.place == Place.SYMBOLIC_LINK.value:
            return blob.is_symlink()
        if blob.is_symlink():
            return False
        return seal.place == Place.STORE.value or not blob.exists() or blob.stat().st_ino == seal.inode

    def state(self, blob: Path) -> State:
        """Compare a blob with its seal. Raises OSError when the file is not there."""
        seal = self.read(blob)
        if seal is None:
            return State.UNSEALED
        now = Seal.of(blob, origin=seal.origin, place=Place(seal.place))
        return State.INTACT if now == seal else State.TOUCHED

    def write(self, blob: Path, *, origin: str = "", place: Place = Place.STORE) -> None:
        """Seal a blob whose digest was found right. Raises OSError."""
        self._write(blob, Seal.of(blob, origin=origin, place=place))

    def renew(self, blob: Path) -> None:
        """Seal a blob whose digest was found right once more, if it is worth it. A store that is read-only stays so."""
        with contextlib.suppress(OSError):
            seal = self.read(blob)
            if seal is not None:
                self.write(blob, origin=seal.origin, place=Place(seal.place))
            elif blob.stat().st_size >= SMALL:
                self.write(blob)

    def _write(self, blob: Path, seal: Seal) -> None:
        target = self.folder / blob.name
        with durable.temporary(self.folder, TEMPORARY_PREFIX) as (path, file):
            file.write(json.dumps(asdict(seal)).encode())
            durable.settle(file, path, target)

    def touch(self, blob: Path) -> bool:
        """Make the seal young in place of a file that lies elsewhere, whose times are not ours. False: it does not."""
        seal = self.read(blob)
        if seal is None or seal.place == Place.STORE.value:
            return False
        with contextlib.suppress(OSError):
            os.utime(self.folder / blob.name)
        return True

    def age(self, blob: Path) -> float:
        """Return when a file that lies elsewhere was last used, in seconds since 1970; 0 for other blobs."""
        seal = self.read(blob)
        if seal is None or seal.place == Place.STORE.value:
            return 0.0
        try:
            return (self.folder / blob.name).stat().st_mtime
        except FileNotFoundError:  # somebody else has just removed the blob
            return 0.0

    def forget(self, blob: Path) -> None:
        """Remove a seal."""
        with contextlib.suppress(OSError):
            (self.folder / blob.name).unlink()

    def sweep(self, blobs: Path) -> None:
        """Remove the seals of blobs that are not in their folder any more."""
        for name in self.names():
            if not os.path.lexists(blobs / name):
                self.forget(blobs / name)

    def names(self) -> list[str]:
        """Return the file names of all blobs that have seals."""
        try:
            return sorted(entry.name for entry in os.scandir(self.folder) if not entry.name.startswith("."))
        except OSError:
            return []
