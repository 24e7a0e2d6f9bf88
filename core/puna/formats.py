"""The formats of what Puna writes to the disk, and what it does with files that a newer version wrote.

Theory. Each kind of file has a version, an integer in a field of a JSON object. The files of API keys, of their usage
and of an installed plugin have the field themselves. The store and the folder of batches have a marker, `format.json`,
for all that is in them. A file without a version is older than all versions and is read as version 0.

The version grows only when an older Puna would damage the new content or misread it. A new field alone is no reason:
readers pass over fields that they do not know, and writers that replace a file keep them. Only the file of keys is
stricter, since an unknown field of a key may restrict it.

A version that is newer than the known one is an error before anything is written, locked or removed. The markers are
read again before each change, because a newer Puna may begin to use a folder while an older one runs.
"""

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from puna import atomic_files

MARKER: Final = "format.json"
_LONGEST_MARKER: Final = 1 << 16
"""Bytes."""


class NewerFormatError(OSError):
    """A newer version of Puna wrote a file. It was not changed."""

    def __init__(self, path: Path, found: int, known: int, remedy: str) -> None:
        # The text names the path. `filename` stays empty, since callers would print the path twice.
        super().__init__(
            errno.ENOTSUP,
            f"{path} has format version {found}, and this version of Puna knows {known} at most: a newer one wrote "
            f"it. Nothing was changed. Run the newer version, or {remedy}",
        )
        self.found = found


@dataclass(frozen=True, slots=True)
class Format:
    """The format of one kind of file or folder."""

    kind: str
    """For people."""
    version: int
    """The version that this Puna writes, and the newest that it knows."""
    remedy: str
    """The user's choice other than to run the newer version."""
    field: str = "version"
    """Name of the field with the version."""

    def check(self, path: Path, content: Mapping[str, Any]) -> int:
        """Return the version of a file's content, 0 if it has none.

        Raises NewerFormatError, and ValueError if the version is no version.
        """
        found = content.get(self.field, 0)
        if type(found) is not int or found < 0:
            raise ValueError(f"{self.field} must be a whole number")
        if found > self.version:
            raise NewerFormatError(path, found, self.version, self.remedy)
        return found

    def versioned(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content with this version as its first field."""
        return {self.field: self.version} | {name: each for name, each in content.items() if name != self.field}


STORE: Final = Format("store of models", 1, "set OLLAMA_MODELS to another folder")
BATCHES: Final = Format("batches and files", 1, "set PUNA_BATCHES to another folder")
KEYS: Final = Format("API keys", 1, "set PUNA_KEYS to another file")
USAGE: Final = Format("usage of API keys", 1, "move the file away; counts and quotas then begin anew")
PLUGIN: Final = Format("installed plugin", 1, "install the plugin again with `puna plugin install`", "format")


@dataclass(frozen=True, slots=True)
class Marker:
    """The file with the version of a folder."""

    path: Path
    format: Format
    mode: int

    def check(self) -> int | None:
        """Return the version of the folder; None if it has no marker.

        Raises NewerFormatError, and OSError if the marker cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(_LONGEST_MARKER)
        except (FileNotFoundError, NotADirectoryError):
            # A file in the place of the folder has no marker either. The step that needs the folder reports it.
            return None
        try:
            content = json.loads(data)
            if not isinstance(content, dict) or self.format.field not in content:
                raise ValueError
            return self.format.check(self.path, content)
        except ValueError:
            text = (
                "it is not a format marker. Restore it from a backup, or remove it if no newer version used the folder"
            )
            raise OSError(errno.EINVAL, text, str(self.path)) from None

    def write(self) -> None:
        """Write the marker unless a marker of this version is there. Raises OSError."""
        if (self.check() or 0) < self.format.version:
            data = json.dumps(self.format.versioned({})).encode() + b"\n"
            atomic_files.write(self.path, data, self.mode)


def store_marker(root: Path) -> Marker:
    """Return the marker of a store, which other accounts may use too. Ollama does not look into its folder."""
    return Marker(root / ".puna" / MARKER, STORE, 0o644)


def batches_marker(root: Path) -> Marker:
    """Return the marker of a folder of batches and files."""
    return Marker(root / MARKER, BATCHES, atomic_files.PRIVATE_MODE)
