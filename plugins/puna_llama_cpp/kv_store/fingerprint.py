"""The fingerprint of a loaded model: everything that decides the bits of its KV cache and the layout of its state.

Two loads share files on disk only if their fingerprints are equal. A wrong match would be a wrong answer, and a missed
match costs an evaluation, so the fingerprint has everything that might matter: the digests of the model and its
adapters, the shared libraries that compute, the processor's features, and every setting of the context.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import llama_cpp.llama_cpp as lib

from puna_ggml_kernels import loader

_LAYOUT = 1
"""Version of the fingerprint. Raise it when Puna's own part of the computation changes."""
_BLOCK_BYTES = 4 << 20
_BLOB = re.compile(r"sha256-[0-9a-f]{64}")
"""The names of files in the store, which are their digests."""
_ENGINE = re.compile(r"lib(llama|ggml[a-z0-9-]*)\.(so|dylib)")
"""The libraries of llama.cpp that compute. The versioned names beside them are the same files."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """The facts of a loaded model that are known at once. `fingerprint` reads files, which may take long."""

    files: tuple[str, ...]
    """The paths of the model and of its adapters, in the order in which they are applied."""
    settings: Mapping[str, object]
    """The settings of weights and context, as JSON values."""

    def fingerprint(self, check: Callable[[], None]) -> bytes:
        """Return the fingerprint, 32 bytes. Blocks; raises OSError if a file cannot be read.

        `check` is called now and then, and may raise to give up.
        """
        kernels = loader.installed() is not None
        parts = {
            "layout": _LAYOUT,
            "files": [_file_digest(Path(path), check) for path in self.files],
            "settings": dict(self.settings),
            "engine": [llama_cpp.__version__, *_engine_digests(check)],
            "processor": lib.llama_print_system_info().decode("utf-8", "replace"),
            "kernels": _content_digest(loader.LIBRARY, check) if kernels else "",
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def _file_digest(path: Path, check: Callable[[], None]) -> str:
    """Return a file's size and SHA-256. A file of the store has its digest as its name and is not read."""
    stored = _BLOB.fullmatch(path.name)
    return f"{path.stat().st_size}:{path.name.removeprefix('sha256-') if stored else _content_digest(path, check)}"


def _content_digest(path: Path, check: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        while block := file.read(_BLOCK_BYTES):
            check()
            digest.update(block)
        after = os.fstat(file.fileno())
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise OSError(f"{path} changed while it was read")
    return digest.hexdigest()


def _engine_digests(check: Callable[[], None]) -> list[str]:
    # A build with other flags has the same version and other bits, so the libraries themselves are hashed: 6 MB.
    folder = Path(llama_cpp.__file__).parent / "lib"
    files = sorted(path for path in folder.iterdir() if _ENGINE.fullmatch(path.name))
    if not files:
        raise OSError(f"{folder} has no library of llama.cpp")
    return [f"{path.name}:{_content_digest(path, check)}" for path in files]
