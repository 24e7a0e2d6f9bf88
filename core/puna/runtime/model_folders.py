"""Folders in which the opaque files of loaded models have their names.

Blobs are named by their digests, and most engines look for names such as "config.json" in a folder. So each load gets a
folder of symbolic links to the blobs, as the cache of Hugging Face has them. It costs some microseconds a file and no
space. The links are symbolic because the folder lies among the sockets, often in memory, where hard links to the store
are impossible.

A folder is complete before its host hears of it. It belongs to one load and is removed when the model is freed, so that
neither a change of the model's name in the store nor a second load changes what a running host sees. Folders of a
server that was killed are removed with its sockets.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from puna.backend import ModelSpec
from puna.errors import LoadFailedError


def place(spec: ModelSpec, folder: Path) -> ModelSpec:
    """Return the specification with its opaque files in a folder, which is made. Blocks.

    The caller removes the folder, also after an error. The names of the files must be safe, see
    `puna.models.relative_names`. Only this user may be able to write beside the folder: others could choose what a host
    loads. Raises LoadFailedError.
    """
    files: dict[str, str] = {}
    try:
        folder.mkdir(mode=0o700)
        for name, blob in spec.files.items():
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
            files[name] = str(link)
    except OSError as error:
        raise LoadFailedError(f"the folder of the model's files cannot be made: {error.strerror}") from error
    path = next(iter(files.values())) if len(files) == 1 else str(folder)
    return replace(spec, files=files, folder=str(folder), path=path)


def remove(folder: str) -> None:
    """Remove a folder that `place` made. The blobs stay. An empty name and a missing folder are ignored. Blocks."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
