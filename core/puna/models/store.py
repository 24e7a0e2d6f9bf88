"""The store of models: one folder with `manifests` and `blobs`, laid out as Ollama's, which may use it meanwhile.

A manifest names the blobs of a model by digest, and blobs are shared between models. The store has three invariants:

- A manifest appears by an atomic rename, and only after its blobs (`ManifestFolder.replace`, `durable`).
- A blob that a manifest names, or is about to name, is not removed. Writers hold shared locks on the blobs, and
  removers take exclusive locks before they look which blobs are in use (`locks`).
- A blob's content has the digest of its name, or a load, a pull or the doctor finds that it has not (`integrity`).

Several processes may use a store, so every call reads the manifests again. What they say about unchanged files is
cached by the files' identity (`HeaderCache`). All calls block, and all may be made from several threads at once.
"""

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import Final

from puna.errors import InvalidDigestError, PunaError
from puna.model_name import ModelName
from puna.models.backends import Backends, NoBackends
from puna.models.facts.details import ModelSummary
from puna.models.facts.header_cache import HeaderCache, ReadTemplate, file_identity, read_template
from puna.models.layout import config as configs
from puna.models.layout import manifest as manifests
from puna.models.layout.config import Config
from puna.models.layout.manifest import Layer, Manifest
from puna.models.manifest_folder import TEMPORARY_PREFIX, ManifestFolder
from puna.models.storage import bounded_files, prune, stat_fingerprints
from puna.models.storage.blobs import BlobStore, SharedLocks
from puna.models.storage.digest import file_name, is_digest
from puna.models.stored import FAULTS, StoredModel, UnreadableModelError
from puna.traceback_summary import summarize

log = logging.getLogger(__name__)

_LOGGED: Final = 300
"""Characters of a reason that are logged."""
_DAY_NS: Final = 86_400 * 10**9
_EARLIEST_NS: Final = -62_135_596_800 * 10**9 + _DAY_NS
_LATEST_NS: Final = 253_402_300_799 * 10**9 - _DAY_NS
"""The first and last moment of the calendar, in nanoseconds since 1970, with a day of room for time zones."""


class ModelStore:
    """The models on this machine."""

    def __init__(
        self,
        root: Path,
        *,
        no_prune: bool = False,
        go_template: bool | None = None,
        read_template: ReadTemplate = read_template,
        backends: Backends | None = None,
    ) -> None:
        """`go_template` says whether a model's Go template is used where it has one. None means: unless its Jinja
        template can do more.

        `read_template` reads Go templates. They are untrusted, and reading them may take unbounded time, so a server
        reads them in a process that it can kill.

        `backends` are the installed backends, which say what models can do whose files only a backend can read.
        """
        self.root = root
        self.no_prune = no_prune
        self.blobs = BlobStore(root / "blobs")
        self.manifests = ManifestFolder(root / "manifests")
        self.backends = backends or NoBackends()
        self._go_template = go_template
        self.read_template = read_template
        self._header_cache = HeaderCache(read=read_template)
        self._left_out: dict[ModelName, str] = {}
        """Reasons for models that are not listed, by name."""

    def check(self) -> None:
        """Raise OSError if the store cannot be used: it is missing, is no folder, may not be entered, or is newer.

        A store that a newer version of Puna wrote gives NewerFormatError.
        """
        self.blobs.check_format()
        # Opening the folder proves that it may be read; a `stat` would not.
        os.scandir(self.root).close()
        for folder in (self.blobs.folder, self.manifests.folder):
            with contextlib.suppress(FileNotFoundError):  # nothing has been stored yet
                os.scandir(folder).close()

    def prune(self) -> None:
        """Remove unused blobs, unfinished files and empty folders that are an hour old. A server calls this at start.

        Nothing is removed while a manifest is unreadable.
        """
        try:
            self.blobs.check_format()
            # Renamed first, so that the steps below know such blobs.
            prune.rename_legacy(self.blobs.folder)
            if self.no_prune:
                return
            # remove_orphans is strict: an unreadable manifest ends the pruning, since it may name any of the blobs.
            self.remove_orphans()
            prune.prune_unfinished(self.blobs.folder)
            prune.prune_unfinished(self.manifests.folder, TEMPORARY_PREFIX)
            prune.prune_unfinished(self.blobs.stat_fingerprints.folder, stat_fingerprints.TEMPORARY_PREFIX)
            self.blobs.stat_fingerprints.remove_orphans(self.blobs.folder)
            prune.remove_empty_folders(self.manifests.folder)
        except (ValueError, OSError) as error:
            log.warning("not pruning the store: %s", error)

    def remove_orphans(self) -> None:
        """Remove unnamed blobs that have not been used for an hour. Raises ValueError and OSError."""

        def is_old(path: Path) -> bool:
            return prune.is_old(path, self.blobs.stat_fingerprints.age(path))

        used = {file_name(digest) for digest in self.manifests.used_digests(strict=True) if is_digest(digest)}
        idle = [path.name for path in self.blobs.files() if path.name not in used and is_old(path)]
        # Without idle blobs no locks are taken.
        if idle:
            self.blobs.remove(idle, lambda: self.manifests.used_digests(strict=True), is_old)

    def resolve(self, name: ModelName) -> ModelName:
        """Return the name in the spelling of the store: see `ManifestFolder.resolve`."""
        return self.manifests.resolve(name)

    def has(self, name: ModelName) -> bool:
        """Return whether there is a model of a valid name, readable or not. The case of the name does not matter."""
        return self.manifests.path(self.resolve(name)).exists()

    def names(self) -> list[ModelName]:
        """Return the names of all manifests, readable or not."""
        return [name for name, _ in self.manifests.walk()]

    def get(self, name: ModelName) -> StoredModel:
        """Return a model. The case of its name does not matter.

        Raises LookupError if the model or its configuration is missing, UnreadableModelError if either is damaged.
        """
        if not name.is_valid:
            raise LookupError(name.shortest)
        resolved = self.resolve(name)
        try:
            return self._load(resolved, self.manifests.path(resolved))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise LookupError(resolved.shortest) from error
        except (ValueError, InvalidDigestError) as error:
            raise UnreadableModelError(f"{resolved.shortest}: {error}") from error

    def without_manifest(self, name: ModelName, config: Config, *, digest: str, modified_ns: int) -> StoredModel:
        """Return a model that consists of its configuration alone and is not in the store."""
        return StoredModel(
            name,
            Manifest(Layer(media_type="", digest="", size=0), ()),
            digest=digest,
            modified_ns=modified_ns,
            config=config,
            blobs=self.blobs,
            header_cache=self._header_cache,
            go_template=self._go_template,
            backends=self.backends,
        )

    def list(self) -> list[ModelSummary]:
        """Return all readable models, newest first. Models of the same second are sorted by name."""
        found: list[ModelSummary] = []
        for name, path in self.manifests.walk():
            try:
                found.append(self._load(name, path).summary)
                self._left_out.pop(name, None)
            except FileNotFoundError:
                continue  # removed meanwhile, or never complete
            except FAULTS as error:  # one bad model must not hide the others
                self._leave_out(name, error)
        return sorted(found, key=lambda each: each.order)

    def _leave_out(self, name: ModelName, error: Exception) -> None:
        """Log why a model is not listed, once for each reason, since clients ask for lists every few seconds."""
        reason = str(error) if isinstance(error, PunaError | ValueError | OSError) else summarize(error)
        if self._left_out.get(name) != reason:
            self._left_out[name] = reason
            log.warning("leaving %s out of the list: %s", name.shortest, reason[:_LOGGED])

    def copy(self, source: ModelName, destination: ModelName) -> None:
        """Give a model a second name, which another model may lose. Raises LookupError if there is no such model."""
        source, destination = self.resolve(source), self.resolve(destination)
        if source.parts == destination.parts:
            return  # even if there is no such model, as in Ollama
        with self.blobs.hold_shared_locks() as shared_locks:
            try:
                data = self._locked_manifest(self.manifests.path(source), shared_locks)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise LookupError(source.shortest) from error
            except ValueError as error:
                raise UnreadableModelError(f"{source.shortest}: {error}") from error
            stale = self.manifests.replace(destination, data)
        self.remove_unused(stale)

    def _locked_manifest(self, path: Path, shared_locks: SharedLocks) -> bytes:
        """Lock the blobs of a manifest and return the manifest.

        It is read again once the locks are held, until it is the one whose blobs are locked: another process may have
        replaced it, and removed its blobs, in between.
        """
        data, before = bounded_files.read(path, bounded_files.MANIFEST), b""
        while data != before:
            with contextlib.suppress(ValueError):
                # Locks that are held stay held: a replaced manifest may name some of the same blobs.
                for digest in filter(is_digest, manifests.loads(data).digests):
                    shared_locks.add(digest)
            data, before = bounded_files.read(path, bounded_files.MANIFEST), data
        return data

    def delete(self, name: ModelName) -> None:
        """Remove a name, and the blobs that no other name uses. Raises LookupError if there is no such model."""
        resolved = self.resolve(name)
        # Read before the removal: afterwards nothing says which blobs the model had.
        manifest = self.manifests.read(resolved)
        try:
            self.manifests.remove(resolved)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise LookupError(resolved.shortest) from error
        if manifest is not None:
            self._remove_blobs(manifest.digests)

    def remove_unused(self, digests: frozenset[str]) -> None:
        """Remove the blobs of a replaced model that no other model uses, unless the store is never pruned."""
        if digests and not self.no_prune:
            self._remove_blobs(digests)

    def _remove_blobs(self, digests: frozenset[str]) -> None:
        self.blobs.remove(digests, lambda: self.manifests.used_digests(strict=False))

    def _load(self, name: ModelName, path: Path) -> StoredModel:
        return self._header_cache.get_or_make(("model", *file_identity(path)), lambda: self._read(name, path))

    def _read(self, name: ModelName, path: Path) -> StoredModel:
        data = bounded_files.read(path, bounded_files.MANIFEST)
        manifest = manifests.loads(data)
        return StoredModel(
            name,
            manifest,
            # The bytes of the file count: Ollama identifies a model by them, and clients compare.
            digest=hashlib.sha256(data).hexdigest(),
            # A file system may report any time, and one outside the calendar would break every list.
            modified_ns=max(_EARLIEST_NS, min(path.stat().st_mtime_ns, _LATEST_NS)),
            config=self._config(manifest),
            blobs=self.blobs,
            header_cache=self._header_cache,
            go_template=self._go_template,
            backends=self.backends,
        )

    def _config(self, manifest: Manifest) -> Config:
        # Old manifests have no configuration.
        if not manifest.config.digest:
            return Config()
        path = self.blobs.path(manifest.config.digest)
        try:
            return configs.loads(bounded_files.read(path, bounded_files.MANIFEST))
        except ValueError as error:
            raise ValueError(f"configuration {path.name}: {error}") from error
