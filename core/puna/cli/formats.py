"""Says which versions the files on this machine have, and what this version of Puna would change. Changes nothing."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from puna.auth.keys import KeyFile, KeyFileError
from puna.formats import KEYS, PLUGIN, STORE, USAGE, Format, Marker, batches_marker, store_marker
from puna.models.storage.digest import is_digest
from puna.plugins.installed import RECORD, Unreadable, links, read_all
from puna.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFormat:
    """A file or folder of Puna."""

    kind: str
    path: Path
    version: int | None
    """None: it has no version, or cannot be read."""
    known_version: int
    """The newest version that this Puna knows."""
    change: str = ""
    """The change that a server of this version makes; empty: none."""
    fault: str = ""
    """Why this version cannot use it; empty: it can."""

    def line(self) -> str:
        """Return a line for people."""
        mark = "FAULT" if self.fault else "note" if self.change else "ok"
        version = f"format version {self.version}" if self.version else "no format version"
        text = self.fault if str(self.path) in self.fault else f"{self.path}: {self.fault or version}"
        return f"{mark:<8} {self.kind}: {text}{f'; {self.change}' if self.change else ''}"

    def dumps(self) -> str:
        """Return JSON for scripts."""
        return json.dumps({"format": {**asdict(self), "path": str(self.path)}})


def survey(settings: Settings) -> Iterator[FoundFormat]:
    """Yield what this version knows of each file and folder that exists. Blocks; reads small files alone."""
    if settings.models.is_dir():
        marker = store_marker(settings.models)
        yield _of_folder(marker, "the first change of the store writes the version, where Ollama does not look")
        if old := [
            each for each in _names(settings.models / "blobs") if each.startswith("sha256:") and is_digest(each)
        ]:
            change = f"the next server renames {len(old)} blobs of a very old Ollama"
            yield FoundFormat(
                kind=STORE.kind,
                path=settings.models / "blobs",
                version=None,
                known_version=STORE.version,
                change=change,
            )
    if settings.batches is not None and settings.batches.is_dir():
        yield _of_folder(batches_marker(settings.batches), "the next server writes the version")
    if settings.keys.is_file():
        yield _of_keys(settings.keys)
    if (usage := settings.keys.parent / "usage.json").is_file():
        yield _of_file(usage, USAGE, "the next server writes the version and keeps all counts")
    if settings.plugins_folder is not None:
        yield from _of_plugins(settings.plugins_folder)


def _names(folder: Path) -> list[str]:
    try:
        return [each.name for each in folder.iterdir()]
    except OSError:
        return []


def _of_folder(marker: Marker, change: str) -> FoundFormat:
    found = FoundFormat(kind=marker.format.kind, path=marker.path, version=None, known_version=marker.format.version)
    try:
        version = marker.check()
    except OSError as error:
        return replace(found, fault=str(error.strerror))
    return replace(found, version=version, change="" if version == marker.format.version else change)


def _of_file(path: Path, kind: Format, change: str = "") -> FoundFormat:
    found = FoundFormat(kind=kind.kind, path=path, version=None, known_version=kind.version)
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            return replace(found, fault="it is not a JSON object")
        version = kind.check(path, content)
    except OSError as error:
        return replace(found, fault=str(error.strerror))
    except ValueError as error:
        return replace(found, fault=f"it cannot be read: {error}")
    return replace(found, version=version or None, change="" if version == kind.version else change)


def _of_keys(path: Path) -> FoundFormat:
    found = _of_file(path, KEYS)
    try:
        KeyFile(path)
    except KeyFileError as error:
        return replace(found, fault=str(error))
    return found


def _of_plugins(folder: Path) -> Iterator[FoundFormat]:
    faults = {each.name: each.fault for each in read_all(folder) if isinstance(each, Unreadable)}
    for link in links(folder):
        found = _of_file(link / RECORD, PLUGIN)
        yield replace(found, fault=faults[link.name]) if link.name in faults else found
