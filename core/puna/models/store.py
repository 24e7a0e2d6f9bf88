"""The store: one folder with `manifests` and `blobs`, laid out as the reference's, which may use it at the same time.

All calls block; all may be made from several threads at once. A model appears when its manifest is renamed into place,
and only after its blobs. Two processes may share a store: every call looks at the manifests again.
"""

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from puna.errors import InvalidDigestError, PunaError
from puna.models.facts.details import ModelSummary
from puna.models.facts.header_cache import HeaderCache, ReadTemplate, file_identity, read_template
from puna.models.layout import config as configs
from puna.models.layout import manifest as manifests
from puna.models.layout.config import Config
from puna.models.layout.manifest import Manifest
from puna.models.name import ModelName
from puna.models.storage import bounded_files, durable, prune, stat_fingerprints
from puna.models.storage.blobs import BlobStore, SharedLocks
from puna.models.storage.digest import file_name, is_digest
from puna.models.stored import FAULTS, StoredModel, UnreadableModelError
from puna.traceback_summary import summarize

log = logging.getLogger(__name__)

TEMPORARY_PREFIX: Final = ".puna-"  # directly in `manifests`, where nobody looks for manifests
_ATTEMPTS: Final = 10
_TOLD: Final = 300
"""Characters of a reason that are logged."""
_DAY_NS: Final = 86_400 * 10**9
_EARLIEST_NS: Final = -62_135_596_800 * 10**9 + _DAY_NS
_LATEST_NS: Final = 253_402_300_799 * 10**9 - _DAY_NS
"""The first and the last moment of the calendar, in nanoseconds since 1970, with room for every time zone."""


class ModelStore:
    """The models on this machine."""

    def __init__(
        self,
        root: Path,
        *,
        no_prune: bool = False,
        go_template: bool | None = None,
        read_template: ReadTemplate = read_template,
    ) -> None:
        """`go_template` says whether Go templates are used where there is one; None: unless Jinja is more capable.

        `read_template` reads Go templates. They are strangers' programs, so a server does it where it can be ended.
        """
        self.root = root
        self.no_prune = no_prune
        self.blobs = BlobStore(root / "blobs")
        self._manifests = root / "manifests"
        self._go_template = go_template
        self.read_template = read_template
        self._header_cache = HeaderCache(read=read_template)
        self._left_out: dict[ModelName, str] = {}
        """Models that are not listed, and why."""
        self._writing = threading.RLock()

    def check(self) -> None:
        """Raise OSError where the store cannot be read: it is gone, or is no folder, or may not be entered."""
        os.scandir(self.root).close()
        for folder in (self.blobs.folder, self._manifests):
            with contextlib.suppress(FileNotFoundError):  # nothing has been stored yet
                os.scandir(folder).close()

    def prune(self) -> None:
        """Tidy up at start: old blobs nobody uses, unfinished files, empty folders. An unreadable manifest stops it."""
        prune.rename_legacy(self.blobs.folder)
        if self.no_prune:
            return
        try:
            self.remove_orphans()
            prune.prune_unfinished(self.blobs.folder)
            prune.prune_unfinished(self._manifests, TEMPORARY_PREFIX)
            prune.prune_unfinished(self.blobs.stat_fingerprints.folder, stat_fingerprints.TEMPORARY_PREFIX)
            self.blobs.stat_fingerprints.remove_orphans(self.blobs.folder)
            prune.remove_empty_folders(self._manifests)
        except (ValueError, OSError) as error:
            log.warning("not pruning the store: %s", error)

    def remove_orphans(self) -> None:
        """Remove blobs that no manifest names and that have not been touched for an hour. ValueError, OSError."""

        def is_old(path: Path) -> bool:
            return prune.is_old(path, self.blobs.stat_fingerprints.age(path))

        used = {file_name(digest) for digest in self.used(strict=True) if is_digest(digest)}
        idle = [path.name for path in self.blobs.files() if path.name not in used and is_old(path)]
        if idle:
            self.blobs.remove(idle, lambda: self.used(strict=True), is_old)

    def resolve(self, name: ModelName) -> ModelName:
        """Return the name in the spelling that the store has: each part that it knows in another case is replaced."""
        if name.is_valid and self._manifest_path(name).is_file():
            return name
        parts, folded = list(name.parts), name.folded
        for known in self.names():
            for index, part in enumerate(known.parts):
                if part.lower() == folded[index]:
                    parts[index] = part
        host, namespace, model, tag = parts
        return ModelName(host, namespace, model, tag, name.scheme)

    def names(self) -> list[ModelName]:
        """Return the names of all manifests, readable or not."""
        return [name for name, _ in self._walk()]

    def get(self, name: ModelName) -> StoredModel:
        """Return a model, whatever the case of its name.

        Raises LookupError when there is none or its configuration is missing, UnreadableModelError if it is wrong.
        """
        if not name.is_valid:
            raise LookupError(name.shortest)
        resolved = self.resolve(name)
        try:
            return self._load(resolved, self._manifest_path(resolved))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise LookupError(resolved.shortest) from error
        except (ValueError, InvalidDigestError) as error:
            raise UnreadableModelError(f"{resolved.shortest}: {error}") from error

    def list(self) -> list[ModelSummary]:
        """Return all models that can be read, newest first; those of the same second by name."""
        found: list[ModelSummary] = []
        for name, path in self._walk():
            try:
                found.append(self._load(name, path).summary)
                self._left_out.pop(name, None)
            except FileNotFoundError:
                continue  # removed meanwhile, or never complete
            except FAULTS as error:  # one bad model must not hide the others
                self._leave_out(name, error)
        return sorted(found, key=lambda each: (-(each.modified_ns // 1_000_000_000), each.name.folded))

    def _leave_out(self, name: ModelName, error: Exception) -> None:
        """Log why a model is not listed, once for each reason. Lists are asked for every few seconds."""
        told = str(error) if isinstance(error, PunaError | ValueError | OSError) else summarize(error)
        if self._left_out.get(name) != told:
            self._left_out[name] = told
            log.warning("leaving %s out of the list: %s", name.shortest, told[:_TOLD])

    def copy(self, source: ModelName, destination: ModelName) -> None:
        """Give a model a second name; a model that had it loses it. Raises LookupError when there is no such model."""
        source, destination = self.resolve(source), self.resolve(destination)
        if source.parts == destination.parts:
            return  # whether there is such a model or not, as in the reference
        with self.blobs.hold_shared_locks() as shared_locks:
            try:
                data = self._locked_manifest(self._manifest_path(source), shared_locks)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise LookupError(source.shortest) from error
            except ValueError as error:
                raise UnreadableModelError(f"{source.shortest}: {error}") from error
            stale = self.replace_manifest(destination, data)
        self.remove_unused(stale)

    def _locked_manifest(self, path: Path, shared_locks: SharedLocks) -> bytes:
        """Return a manifest whose blobs are claimed; if somebody was faster and removed them, its successor."""
        data, before = bounded_files.read(path, bounded_files.MANIFEST), b""
        while data != before:
            with contextlib.suppress(ValueError):
                for digest in filter(is_digest, manifests.loads(data).digests):
                    shared_locks.add(digest)
            data, before = bounded_files.read(path, bounded_files.MANIFEST), data
        return data

    def delete(self, name: ModelName) -> None:
        """Remove a name, and the blobs that no other name uses. Raises LookupError when there is no such model."""
        resolved = self.resolve(name)
        path = self._manifest_path(resolved)
        manifest = self.read_manifest(resolved)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise LookupError(resolved.shortest) from error
        prune.remove_empty_folders(self._manifests)
        if manifest is not None:
            self._remove_blobs(manifest.digests)

    def read_manifest(self, name: ModelName) -> Manifest | None:
        """Return a manifest as it stands, None if there is none or it cannot be read. The name is not resolved."""
        try:
            return manifests.loads(bounded_files.read(self._manifest_path(name), bounded_files.MANIFEST))
        except (OSError, ValueError):
            return None

    def replace_manifest(self, name: ModelName, data: bytes) -> frozenset[str]:
        """Make `name` mean this manifest, at once and for good. Returns the digests of the one it had, to `forget`."""
        target = self._manifest_path(name)
        with self._writing:
            before = self.read_manifest(name)
            for attempt in range(_ATTEMPTS):
                try:
                    with durable.temporary(self._manifests, TEMPORARY_PREFIX) as (path, file):
                        target.parent.mkdir(parents=True, exist_ok=True)
                        file.write(data)
                        durable.replace_atomically(file, path, target)
                    break
                except (FileNotFoundError, FileExistsError):  # somebody removed the empty folder in between
                    if attempt == _ATTEMPTS - 1:
                        raise
            for folder in target.parents[1:3]:
                with contextlib.suppress(FileNotFoundError):  # the model has been removed already
                    durable.sync_folder(folder)
        return before.digests if before is not None else frozenset()

    def remove_unused(self, digests: frozenset[str]) -> None:
        """Remove those of a replaced model's blobs that nobody uses, unless the store is never pruned."""
        if digests and not self.no_prune:
            self._remove_blobs(digests)

    def _remove_blobs(self, digests: frozenset[str]) -> None:
        self.blobs.remove(digests, lambda: self.used(strict=False))

    def _load(self, name: ModelName, path: Path) -> StoredModel:
        return self._header_cache.get_or_make(("model", *file_identity(path)), lambda: self._read(name, path))

    def _read(self, name: ModelName, path: Path) -> StoredModel:
        data = bounded_files.read(path, bounded_files.MANIFEST)
        manifest = manifests.loads(data)
        return StoredModel(
            name,
            manifest,
            digest=hashlib.sha256(data).hexdigest(),
            modified_ns=max(_EARLIEST_NS, min(path.stat().st_mtime_ns, _LATEST_NS)),
            config=self._config(manifest),
            blobs=self.blobs,
            header_cache=self._header_cache,
            go_template=self._go_template,
        )

    def _config(self, manifest: Manifest) -> Config:
        if not manifest.config.digest:
            return Config()
        path = self.blobs.path(manifest.config.digest)
        try:
            return configs.loads(bounded_files.read(path, bounded_files.MANIFEST))
        except ValueError as error:
            raise ValueError(f"configuration {path.name}: {error}") from error

    def _manifest_path(self, name: ModelName) -> Path:
        return self._manifests.joinpath(*name.parts)

    def _walk(self) -> Iterator[tuple[ModelName, Path]]:
        for path in _files(self._manifests, 4):
            name = ModelName(*path.parts[-4:])
            if name.is_valid:
                yield name, path
            else:
                log.debug("no manifest: %s", path)

    def used(self, *, strict: bool) -> frozenset[str]:
        """Return the digests of all manifests. When strict, one that cannot be read raises ValueError."""
        used: set[str] = set()
        for path in _files(self._manifests, 4, strict=strict):
            if not ModelName(*path.parts[-4:]).is_valid:
                if strict:
                    raise ValueError(f"{path} is no manifest")
                continue
            try:
                used |= manifests.loads(bounded_files.read(path, bounded_files.MANIFEST)).digests
            except FileNotFoundError:
                continue
            except ValueError as error:
                if strict:
                    raise ValueError(f"{path}: {error}") from error
        return frozenset(used)


def _files(folder: Path, depth: int, *, strict: bool = False) -> Iterator[Path]:
    """Yield the files exactly `depth` levels below a folder. What cannot be read is left out, or raises if strict."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        if strict:
            raise
        return
    for entry in entries:
        try:
            is_wanted = entry.is_dir() if depth > 1 else entry.is_file()
        except OSError:  # a link that leads to itself
            if strict:
                raise
            continue
        if is_wanted and depth > 1:
            yield from _files(folder / entry.name, depth - 1, strict=strict)
        elif is_wanted:
            yield folder / entry.name
