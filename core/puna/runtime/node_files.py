"""The files of a model: their description for a node, and the paths that they have there."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from puna.backend import ModelSpec
from puna.backend.v1 import node_pb2 as wire
from puna.models.storage import digest as digests
from puna.runtime.errors import NodeError


def files_of(spec: ModelSpec) -> list[wire.ModelFile]:
    """Return the files of a specification with their sizes and digests. Blocks. Raises NodeError.

    The name of a blob is its digest. A file with another name is read to compute its digest.
    """
    found = []
    try:
        for name, link in spec.files.items():
            # A link in the folder of this load, which the node does not see, to the file itself.
            path = str(Path(link).readlink()) if Path(link).is_symlink() else link
            found.append(_file(path, name))
        found += [_file(each) for each in _others(spec)]
    except OSError as error:
        raise NodeError(f"a file of the model cannot be read: {error.strerror}: {error.filename}") from error
    return found


def localized(spec: ModelSpec, files: Sequence[wire.ModelFile], placed: wire.PlaceFilesResponse) -> ModelSpec:
    """Return a specification with the paths and the free memory of a node. `files` is what `files_of` returned."""
    paths = dict(zip((each.path for each in files), placed.paths, strict=True))
    spec = replace(
        spec,
        memory_bytes=placed.free_memory_bytes,
        path=paths.get(spec.path, spec.path),
        adapter_paths=tuple(paths[each] for each in spec.adapter_paths),
        projector_paths=tuple(paths[each] for each in spec.projector_paths),
        draft_path=paths[spec.draft_path] if spec.draft_path else spec.draft_path,
    )
    if not spec.files:
        return spec
    names = {name: f"{placed.folder}/{name}" for name in spec.files}
    path = next(iter(names.values())) if len(names) == 1 else placed.folder
    return replace(spec, files=names, folder=placed.folder, path=path)


def _others(spec: ModelSpec) -> list[str]:
    paths = (*spec.adapter_paths, *spec.projector_paths, spec.draft_path or "", "" if spec.files else spec.path)
    return [each for each in paths if each]


def _file(path: str, name: str = "") -> wire.ModelFile:
    status, last = Path(path).stat(), Path(path).name
    if digests.is_digest(last):
        digest = digests.plain(last).lower()
    else:
        digest = _digest(path, (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    return wire.ModelFile(path=path, bytes=status.st_size, name=name, digest=digest)


@lru_cache(maxsize=1024)
def _digest(path: str, state: tuple[int, ...]) -> str:  # noqa: ARG001 - a changed file has another state
    with Path(path).open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
