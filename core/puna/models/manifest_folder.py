"""The manifests of a store: `manifests/HOST/NAMESPACE/MODEL/TAG`, one small JSON file for each name of a model.

A model exists from the moment that its manifest is renamed into place. Ollama and other servers write to the same
folder at any time, so nothing is cached here and every file may be missing, foreign or damaged when it is read.

Temporary manifests lie directly in `manifests`. Ollama takes every file at the depth of real manifests for one, and
refuses to prune when it cannot read it. A writer creates the folders of a name and a remover deletes empty folders, so
a writer tries again when the folder has vanished between the two steps.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from puna import formats
from puna.atomic_files import sync_folder
from puna.model_name import ModelName
from puna.models.layout import manifest as manifests
from puna.models.layout.manifest import Manifest
from puna.models.storage import bounded_files, durable, prune

log = logging.getLogger(__name__)

TEMPORARY_PREFIX: Final = ".puna-"
_ATTEMPTS: Final = 10
"""Attempts to write a manifest while others remove its empty folder."""
_DEPTH: Final = 4
"""Folders and files from `manifests` to a manifest: host, namespace, model and tag."""


class ManifestFolder:
    """The folder of manifests. Every call blocks; all may be made from several threads at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._marker = formats.store_marker(folder.parent)
        # Two writers of one name would otherwise both return the digests of the same replaced manifest, and neither
        # those of the other.
        self._writing = threading.RLock()

    def path(self, name: ModelName) -> Path:
        """Return the path of a manifest, which need not exist."""
        return self.folder.joinpath(*name.parts)

    def resolve(self, name: ModelName) -> ModelName:
        """Return the name in the spelling of the store.

        A name that has no manifest of its own takes each part that some manifest has in another case.
        """
        # The usual case costs one `stat`; only a name in another spelling needs a walk over all manifests.
        if name.is_valid and self.path(name).is_file():
            return name
        parts, folded = list(name.parts), name.folded
        for known, _ in self.walk():
            for index, part in enumerate(known.parts):
                # Each part is taken on its own, as in Ollama: a new tag of a known model gets the model's spelling.
                if part.lower() == folded[index]:
                    parts[index] = part
        host, namespace, model, tag = parts
        return ModelName(host, namespace, model, tag, name.scheme)

    def walk(self) -> Iterator[tuple[ModelName, Path]]:
        """Yield all manifests, readable or not, in the order of their paths."""
        for path in _files(self.folder, _DEPTH):
            name = ModelName(*path.parts[-_DEPTH:])
            if name.is_valid:
                yield name, path
            else:
                log.debug("not a manifest: %s", path)

    def read(self, name: ModelName) -> Manifest | None:
        """Return a manifest; None if it is missing or unreadable. The name is not resolved."""
        try:
            return manifests.loads(bounded_files.read(self.path(name), bounded_files.MANIFEST))
        except (OSError, ValueError):
            return None

    def replace(self, name: ModelName, data: bytes) -> frozenset[str]:
        """Write a manifest atomically and durably. Return the digests of the manifest that it replaces.

        The caller holds shared locks on the blobs that the new manifest names. Raises OSError, and NewerFormatError if
        a newer version of Puna wrote the store.
        """
        self._marker.check()
        target = self.path(name)
        with self._writing:
            before = self.read(name)
            for attempt in range(_ATTEMPTS):
                try:
                    with durable.temporary(self.folder, TEMPORARY_PREFIX) as (path, file):
                        target.parent.mkdir(parents=True, exist_ok=True)
                        file.write(data)
                        durable.replace_atomically(file, path, target)
                    break
                except (FileNotFoundError, FileExistsError):  # another process removed the empty folder in between
                    if attempt == _ATTEMPTS - 1:
                        raise
            # The rename flushed the folder of the tag. Folders above it may be as new, and a loss of power would lose
            # them.
            for folder in target.parents[1:3]:
                with contextlib.suppress(FileNotFoundError):  # the model has been removed already
                    sync_folder(folder)
        return before.digests if before is not None else frozenset()

    def remove(self, name: ModelName) -> None:
        """Remove a manifest and the folders that it leaves empty.

        Raises OSError if there is none, and NewerFormatError if a newer version of Puna wrote the store.
        """
        self._marker.check()
        self.path(name).unlink()
        prune.remove_empty_folders(self.folder)

    def used_digests(self, *, strict: bool) -> frozenset[str]:
        """Return the digests that all manifests name. If strict, an unreadable manifest raises ValueError.

        A caller that removes everything else must be strict: an unreadable manifest may name any blob.
        """
        used: set[str] = set()
        for path in _files(self.folder, _DEPTH, strict=strict):
            if not ModelName(*path.parts[-_DEPTH:]).is_valid:
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
    """Yield the files exactly `depth` levels below a folder. An unreadable folder is skipped, or raises if strict."""
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
