"""Files of clients. Each has an owner: the id of the API key that created it, or an empty text without keys."""

import json
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from puna.batch.batch import known
from puna.batch.folder import Folder, Preparation, flush, published, remove
from puna.batch.quota import Quota, check_number
from puna.errors import InvalidRequestError, NotFoundError, TooLargeError
from puna.limits import Limits
from puna.models.storage.durable import check_room

log = logging.getLogger(__name__)

CHUNK: Final = 1 << 18
"""Bytes that are read at once."""
LONGEST_NAME: Final = 255
LONGEST_PURPOSE: Final = 64
_FOLDER: Final = "files"
_DESCRIPTION: Final = "file.json"
_CONTENT: Final = "content"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The description of a file."""

    id: str
    owner: str
    name: str
    purpose: str
    size: int
    create_ns: int
    """Nanoseconds since 1970."""


class FileWriter:
    """A file that is being stored."""

    def __init__(self, files: "FileStore", parent: Path, new: StoredFile) -> None:
        self._files = files
        self._new = new
        self._preparation = Preparation(parent, new.id)
        self._content = self._preparation.create(_CONTENT)
        self._size = 0
        self._published = False

    def write(self, chunk: bytes) -> None:
        """Append bytes. TooLargeError: a limit is exceeded. OSError: the disk has no room."""
        limits = self._files.limits
        if self._size + len(chunk) > limits.max_file_bytes:
            raise TooLargeError(
                f"the file is larger than {limits.max_file_bytes} bytes; PUNA_MAX_FILE_BYTES changes the limit",
                limit=limits.max_file_bytes,
                setting="PUNA_MAX_FILE_BYTES",
            )
        self._files.quota.add(self._new.owner, len(chunk))
        self._size += len(chunk)
        check_room(self._preparation.folder, len(chunk))
        self._content.write(chunk)

    def flush(self, size: int | None = None) -> None:
        """Flush the file to the disk. InvalidRequestError: it is not of this size."""
        if size is not None and size != self._size:
            raise InvalidRequestError(f"the file has {self._size} bytes and not {size}", field="config.size_bytes")
        flush(self._content)

    def finish(self) -> StoredFile:
        """Have the file exist, and return its description. It must have been flushed."""
        new = StoredFile(**{**asdict(self._new), "size": self._size})
        with self._preparation.create(_DESCRIPTION) as file:
            file.write(json.dumps(asdict(new)).encode())
            flush(file)
        self._preparation.publish()
        self._published = True
        self._files.add(new)
        return new

    def close(self) -> None:
        """Close the file, and remove it unless it was finished."""
        self._content.close()
        if not self._published:
            self._preparation.discard()
            self._files.quota.remove(self._new.owner, self._size)


class FileStore:
    """All files. Its methods block."""

    def __init__(self, folder: Folder, limits: Limits, quota: Quota, clock: Callable[[], int] = time.time_ns) -> None:
        """`clock` returns nanoseconds since 1970."""
        self._folder = folder
        self._clock = clock
        self._files: dict[str, StoredFile] = {}
        self.limits = limits
        self.quota = quota

    def load(self) -> None:
        """Read the descriptions of all files, and remove what writers that died have left."""
        for each in published(self._folder.open() / _FOLDER):
            try:
                found = StoredFile(**known(StoredFile, json.loads((each / _DESCRIPTION).read_bytes())))
            except (OSError, ValueError, TypeError, AttributeError) as error:
                log.error("the file in %s cannot be read: %s", each, type(error).__name__)
                continue
            self._files[found.id] = found
            self.quota.force(found.owner, found.size)

    def writer(self, owner: str, name: str, purpose: str) -> FileWriter:
        """Begin a file. Raises InvalidRequestError, TooLargeError and OSError. The caller closes the writer."""
        for what, text, most in (("name", name, LONGEST_NAME), ("purpose", purpose, LONGEST_PURPOSE)):
            if len(text) > most:
                raise InvalidRequestError(f"the {what} of the file has more than {most} characters", field=what)
        owned = len(self.listed(owner))
        if owner:
            check_number("files", owned, self.limits.max_files_per_key, "PUNA_MAX_FILES_PER_KEY", " of this API key")
        check_number("files", len(self._files), self.limits.max_files, "PUNA_MAX_FILES")
        parent = self._folder.open() / _FOLDER
        new = StoredFile(f"file-{secrets.token_hex(16)}", owner, name, purpose, 0, self._clock())
        return FileWriter(self, parent, new)

    def add(self, new: StoredFile) -> None:
        """List a file that a writer has stored."""
        self._files[new.id] = new

    def get(self, owner: str, id_: str) -> StoredFile:
        """Return the description of a file. Raises NotFoundError, also for the file of another owner."""
        found = self._files.get(id_)
        if found is None or found.owner != owner:
            raise NotFoundError(f"there is no file {id_[:LONGEST_NAME]!r}")
        return found

    def listed(self, owner: str) -> list[StoredFile]:
        """Return the files of an owner, newest first."""
        found = (each for each in list(self._files.values()) if each.owner == owner)
        return sorted(found, key=lambda each: (each.create_ns, each.id), reverse=True)

    def delete(self, owner: str, id_: str) -> None:
        """Remove a file. Raises NotFoundError."""
        found = self.get(owner, id_)
        self._files.pop(id_, None)
        remove(self._folder.open() / _FOLDER / id_)
        self.quota.remove(found.owner, found.size)

    def open(self, owner: str, id_: str) -> BinaryIO:
        """Open a file for reading. Raises NotFoundError. A file that is deleted meanwhile can be read to its end."""
        self.get(owner, id_)
        return (self._folder.open() / _FOLDER / id_ / _CONTENT).open("rb")

    def kept_until(self, file: StoredFile) -> float:
        """Return when a file is removed, in seconds since 1970."""
        return file.create_ns / 1e9 + self.limits.max_kept_seconds

    def expire(self) -> None:
        """Remove the files whose time is over."""
        now = self._clock() / 1e9
        for each in list(self._files.values()):
            if self.kept_until(each) <= now:
                self.delete(each.owner, each.id)
