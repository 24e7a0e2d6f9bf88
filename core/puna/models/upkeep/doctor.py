"""Checking a whole store: every manifest, every blob and every leftover, and repairing what can be repaired.

The check works on the folder alone, whether or not servers run. It removes nothing that is locked, being written,
or used within the last hour. It deletes no manifest: an unreadable one is moved to `.puna/broken`, since it may
name blobs that are still wanted.
"""

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from puna.atomic_files import sync_folder
from puna.errors import BackendNotFoundError, InvalidDigestError, StoreFailedError
from puna.model_name import ModelName
from puna.models.layout import manifest as manifests
from puna.models.layout.manifest import Layer, Manifest
from puna.models.progress import JobPhase, TransferStep
from puna.models.storage import bounded_files, locks, prune
from puna.models.storage.blobs import PRIVATE
from puna.models.storage.digest import file_name, is_digest
from puna.models.storage.integrity import StoppedError, find_damage, never
from puna.models.store import ModelStore
from puna.models.stored import FAULTS, StoredModel
from puna.models.upkeep.report import Finding, Kind, Report

_TICK: Final = 0.06
_READERS: Final = min(4, os.cpu_count() or 1)
_AGAIN: Final = "pull it, create it or import it again"
_DEPTH: Final = 4
_BEING_WRITTEN_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Named:
    name: ModelName
    path: Path
    manifest: Manifest


def examine(
    store: ModelStore, *, repair: bool = False, quick: bool = False, stopped: Callable[[], bool] = never
) -> Iterator[TransferStep | Finding | Report]:
    """Check a store. Yields progress and findings, and a report at the end. Blocks.

    With `quick`, only sizes and stat fingerprints of blobs are checked. With `repair`, damaged blobs are removed,
    so that a pull fetches them again, as are old orphans and unfinished files. Raises StoppedError, and what
    `BlobStore.check_format` raises.
    """
    return _Examination(store, repair=repair, quick=quick, stopped=stopped).run()


@dataclass(slots=True)
class _Examination:
    store: ModelStore
    repair: bool
    quick: bool
    stopped: Callable[[], bool]
    named: list[_Named] = field(default_factory=list)
    users: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Names of models by the file name of each blob that they use."""
    bytes_read: int = 0
    counting: threading.Lock = field(default_factory=threading.Lock)
    damaged: set[str] = field(default_factory=set)
    set_aside: bool = False

    def run(self) -> Iterator[TransferStep | Finding | Report]:
        self.store.blobs.check_format()
        found = []
        for each in self._all():
            if isinstance(each, Finding):
                found.append(each)
            yield each
        yield Report(
            models=len(self.named),
            blobs=len(self.store.blobs.files()),
            bytes_read=self.bytes_read,
            faults=sum(each.kind.is_fault and not each.repaired for each in found),
            repaired=sum(each.repaired for each in found),
        )

    def _all(self) -> Iterator[TransferStep | Finding]:
        yield TransferStep(JobPhase.READING_MANIFEST, "reading manifests")
        yield from self._manifests()
        yield from self._clashes()
        yield from self._blobs()
        yield from self._models()
        yield from self._leftovers()
        if self.repair:
            self.store.blobs.stat_fingerprints.remove_orphans(self.store.blobs.folder)

    def _manifests(self) -> Iterator[Finding]:
        root = self.store.root / "manifests"
        for folder, folders, files in os.walk(root):
            folders.sort()
            for file in sorted(files):
                path = Path(folder) / file
                parts = path.relative_to(root).parts
                if file.startswith(".puna-") and len(parts) == 1:
                    continue
                if len(parts) != _DEPTH or not (name := ModelName(*parts)).is_valid:
                    text = "no model can have this name, and Ollama prunes nothing while it is there"
                    yield self._stray(path, text if len(parts) == _DEPTH else "no manifest can lie here")
                    continue
                try:
                    manifest = manifests.loads(bounded_files.read(path, bounded_files.MANIFEST))
                    for layer in _layers(manifest):
                        self.users[file_name(layer.digest)].append(name.shortest)
                except FileNotFoundError:
                    if path.is_symlink():
                        yield Finding(kind=Kind.UNREADABLE, path=str(path), text="it is a link that leads nowhere")
                    continue  # removed meanwhile
                except OSError as error:
                    yield Finding(kind=Kind.UNREADABLE, path=str(path), text=str(error.strerror))
                except (ValueError, InvalidDigestError) as error:
                    yield self._broken(name, path, str(error))
                else:
                    self.named.append(_Named(name, path, manifest))

    def _stray(self, path: Path, text: str) -> Finding:
        return Finding(kind=Kind.STRAY, path=str(path), text=text, advice="remove it if it is not yours")

    def _broken(self, name: ModelName, path: Path, text: str) -> Finding:
        finding = Finding(kind=Kind.BROKEN_MANIFEST, path=str(path), text=text, advice=_AGAIN, models=(name.shortest,))
        return self._repaired(finding, lambda: self._set_aside(name, path)) if self.repair else finding

    def _set_aside(self, name: ModelName, path: Path) -> str:
        """Move a manifest away, unless it is so new that Ollama, which does not write atomically, may be writing it."""
        if time.time() - path.stat().st_mtime < _BEING_WRITTEN_SECONDS:
            return ""
        aside = self.store.root / PRIVATE / "broken"
        aside.mkdir(parents=True, exist_ok=True)
        path.replace(aside / "_".join((*name.parts, str(time.time_ns()))))
        sync_folder(aside)
        prune.remove_empty_folders(self.store.root / "manifests")
        self.set_aside = True
        return f"it was moved to {aside}; {_AGAIN} within the hour, and blobs that are there are not fetched again"

    def _repaired(self, finding: Finding, repair: Callable[[], str]) -> Finding:
        """Return a finding with its repair. `repair` returns what it did, empty if it could do nothing."""
        try:
            done = repair()
        except OSError as error:
            return replace(finding, advice=f"it cannot be repaired: {StoreFailedError(error)}")
        return replace(finding, repaired=True, advice=done) if done else finding

    def _clashes(self) -> Iterator[Finding]:
        spellings: dict[tuple[str, ...], list[_Named]] = defaultdict(list)
        for each in self.named:
            spellings[each.name.folded].append(each)
        for same in spellings.values():
            if len(same) > 1:
                names = tuple(each.name.shortest for each in same)
                yield Finding(
                    kind=Kind.CLASHING_NAMES,
                    path=str(same[0].path),
                    text=f"{' and '.join(names)} are the same name to clients",
                    advice="copy one of them to another name, then remove it under this one",
                    models=names,
                )

    def _blobs(self) -> Iterator[TransferStep | Finding]:
        """Verify digests and sizes of all blobs, several at once."""
        sizes = self._sizes()
        for name in sorted(set(sizes) - {path.name for path in self.store.blobs.files()}):
            yield from self._missing(name)
        todo = [(path.name, sizes.get(path.name, 0)) for path in self.store.blobs.files()]
        total = sum(_size(self.store.blobs.folder / name) for name, _ in todo)
        # The readers must end when the caller closes the iterator, not only when it asks to stop.
        over = threading.Event()

        def is_over() -> bool:
            return over.is_set() or self.stopped()

        with ThreadPoolExecutor(_READERS) as pool:
            try:
                waiting = {pool.submit(self._look, name, size, is_over): name for name, size in todo}
                while waiting:
                    # The timeout keeps the progress moving while the readers hash large files.
                    done, _ = wait(waiting, _TICK, FIRST_COMPLETED)
                    for each in done:
                        yield from self._judged(waiting.pop(each), each)
                    if not self.quick:
                        yield TransferStep(JobPhase.VERIFYING, "reading blobs", "", total, min(self.bytes_read, total))
            finally:
                over.set()
                pool.shutdown(cancel_futures=True)

    def _sizes(self) -> dict[str, int]:
        """Return the size of each blob in the manifests, 0 where they disagree."""
        sizes: dict[str, int] = {}
        for each in self.named:
            for layer in _layers(each.manifest):
                name = file_name(layer.digest)
                sizes[name] = layer.size if sizes.get(name, layer.size) == layer.size else 0
        return sizes

    def _look(self, name: str, size: int, is_over: Callable[[], bool]) -> str:
        if is_over():
            raise StoppedError
        look = partial(
            find_damage, self.store.blobs, name, thorough=not self.quick, use_fingerprints=self.quick, stopped=is_over
        )
        text = look(size, on_bytes=self._on_bytes)
        if text and not self.quick:  # the digest decides, not what a manifest says of the size
            text = look(0, on_bytes=self._on_bytes) and text
        return text

    def _on_bytes(self, count: int) -> None:
        with self.counting:
            self.bytes_read += count

    def _missing(self, name: str) -> Iterator[Finding]:
        path = self.store.blobs.folder / name
        if models := self._using(name):
            yield Finding(
                kind=Kind.MISSING_BLOB,
                path=str(path),
                text=f"blob {path} is gone",
                advice=_AGAIN,
                digest=name.replace("-", ":", 1),
                models=models,
            )

    def _using(self, name: str) -> tuple[str, ...]:
        """Return the models that use a blob now. Some may have been removed since they were read."""
        used = []
        for each in self.named:
            manifest = self.store.manifests.read(each.name)
            if manifest is not None and any(file_name(layer.digest) == name for layer in _layers(manifest)):
                used.append(each.name.shortest)
        return tuple(used)

    def _judged(self, name: str, look: Future[str]) -> Iterator[Finding]:
        path = self.store.blobs.folder / name
        digest = name.replace("-", ":", 1)
        try:
            text = look.result()
        except OSError as error:
            models = self._using(name)
            if isinstance(error, FileNotFoundError) and not models:
                return  # it was removed meanwhile
            text = f"{path}: {error.strerror}"
            yield Finding(kind=Kind.UNREADABLE, path=str(path), text=text, digest=digest, models=models)
            return
        if not text:
            return
        models = self._using(name)
        if not models and not os.path.lexists(path):
            return  # it was removed meanwhile
        self.damaged.add(name)
        advice = _AGAIN if models else "no model uses it"

        def remove() -> str:
            self.store.blobs.remove([digest], frozenset)
            return "" if os.path.lexists(path) else f"it was removed; {advice}"

        finding = Finding(
            kind=Kind.DAMAGED_BLOB, path=str(path), text=text, advice=advice, digest=digest, models=models
        )
        yield self._repaired(finding, remove) if self.repair else finding

    def _models(self) -> Iterator[Finding]:
        """Read every undamaged model as a load does."""
        for each in self.named:
            names = {file_name(layer.digest) for layer in _layers(each.manifest)}
            # Damaged and missing blobs have findings of their own.
            if names & self.damaged or not all((self.store.blobs.folder / name).exists() for name in names):
                continue
            try:
                _check_sizes(self.store, each.manifest)
                model = self.store.get(each.name)
                _ = model.parameters, model.messages, model.template_facts, model.system, model.licenses
                if model.model_path is not None and model.config.is_gguf:
                    _ = model.gguf
                _ = model.files
                yield from self._without_backend(each, model)
            except LookupError:
                continue  # removed meanwhile
            except FAULTS as error:
                shortest = each.name.shortest
                yield Finding(
                    kind=Kind.BROKEN_MODEL, path=str(each.path), text=str(error), advice=_AGAIN, models=(shortest,)
                )

    def _without_backend(self, each: _Named, model: StoredModel) -> Iterator[Finding]:
        """Report a model whose backend cannot be used now. Which backend serves GGUF is no matter of the store."""
        if not model.config.backend and not model.config.is_opaque:
            return
        try:
            self.store.backends.serving(model.config.format, model.config.backend)
        except BackendNotFoundError as error:
            yield Finding(
                kind=Kind.NO_BACKEND,
                path=str(each.path),
                text=str(error),
                advice="the model can be loaded once the backend is installed",
                models=(each.name.shortest,),
            )

    def _leftovers(self) -> Iterator[Finding]:
        used = {file_name(digest) for digest in self.store.manifests.used_digests(strict=False) if is_digest(digest)}
        known = {*self.users, *used, *self.damaged}
        orphans = [self._orphan(path) for path in self.store.blobs.files() if path.name not in known]
        if self.repair and orphans:
            if self.set_aside:  # they may belong to these manifests, and a pull would need them again
                for each in orphans:
                    self.store.blobs.touch(each.digest)
            with contextlib.suppress(ValueError, OSError):  # a manifest that came just now; a folder that is read-only
                self.store.remove_orphans()
        for each in orphans:
            gone = self.repair and not os.path.lexists(each.path)
            yield replace(each, repaired=True, advice="it was removed") if gone else each
        for folder, prefix in ((self.store.blobs.folder, ""), (self.store.root / "manifests", ".puna-")):
            if not folder.is_dir():
                continue
            for path in sorted(folder.iterdir()):
                if path.is_file() and not is_digest(path.name) and path.name.startswith(prefix):
                    finding = self._unfinished(path)
                    if finding is not None:
                        yield finding

    def _orphan(self, path: Path) -> Finding:
        return Finding(
            kind=Kind.ORPHAN,
            path=str(path),
            text=f"no model uses these {_size(path)} bytes",
            advice="a start of the server removes it once it is an hour old",
            digest=path.name.replace("-", ":", 1),
        )

    def _unfinished(self, path: Path) -> Finding | None:
        written = prune.locked_file(path)
        is_partial = bool(path.name.partition("-partial")[1])
        if is_partial and path != written and written.exists():
            return None  # the note of a part; the finding is about its bytes
        with locks.try_lock(written) as free:
            if is_partial:
                text = f"a download that is not finished: {'a pull resumes it' if free else 'a pull is writing it'}"
                return Finding(kind=Kind.PARTIAL, path=str(path), text=text)
            finding = Finding(
                kind=Kind.UNFINISHED if path.name.startswith(("sha256-", ".puna-")) else Kind.STRAY,
                path=str(path),
                text="no server knows it under this name" if free else "a program is writing it",
                advice="a start of the server removes it once it is an hour old" if free else "",
            )
            if self.repair and free and prune.is_old(path):
                return self._repaired(finding, lambda: _removed(path))
        return finding


def _check_sizes(store: ModelStore, manifest: Manifest) -> None:
    """Raise ValueError if a manifest is wrong about the size of a blob, and OSError."""
    for layer in _layers(manifest):
        path = store.blobs.path(layer.digest)
        if layer.size and layer.size != (size := path.stat().st_size):
            raise ValueError(f"the manifest says that {path.name} has {layer.size} bytes instead of {size}")


def _layers(manifest: Manifest) -> list[Layer]:
    return [layer for layer in (manifest.config, *manifest.layers) if layer.digest]


def _removed(path: Path) -> str:
    path.unlink(missing_ok=True)
    return "it was removed"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
