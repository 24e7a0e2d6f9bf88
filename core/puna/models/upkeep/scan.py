"""Scanning folders for GGUF files: which files form a model, and what to name it. Nothing is written."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from puna.errors import InvalidCreateError
from puna.gguf import reader as gguf
from puna.gguf.reader import GGUFError
from puna.models.create.uploads import SHARD, media_type_of
from puna.models.layout import media_types
from puna.models.opaque_files import files_of

SUFFIX: Final = ".gguf"
_TYPES: Final = r"(?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|B?F16|F32|TQ\d_\d|MXFP4(?:_MOE)?)"
_TYPE: Final = re.compile(_TYPES, re.IGNORECASE)
_TYPED: Final = re.compile(rf"(?P<base>.+?)[-._](?P<type>{_TYPES})", re.IGNORECASE)
_PROJECTOR: Final = re.compile(r"^mmproj[-._]?|[-._]?mmproj$", re.IGNORECASE)
_NAMELESS: Final = frozenset(("", "model", "ggml-model", "ggml", "gguf"))
_FOLDER_SUFFIX: Final = re.compile(r"[-._]gguf$", re.IGNORECASE)
_REVISION: Final = re.compile(r"[0-9a-f]{40}|snapshots")
_UNNAMEABLE: Final = re.compile(r"[^a-z0-9_.-]+")
_LONGEST: Final = 80
_PREFERRED: Final = ("f16", "bf16", "f32", "q8_0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model: one file or all shards in order, and the projectors that belong to it."""

    name: str
    """A suggested name: "smollm2-135m-instruct:q8_0"."""
    files: tuple[Path, ...]
    projectors: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    """The name of each opaque file, relative to the model's folder; empty for GGUF files."""

    @property
    def is_split(self) -> bool:
        """Whether its shards must be joined, which makes a copy."""
        return len(self.files) > 1 and not self.names

    @property
    def size(self) -> int:
        """Bytes of all its files. Raises OSError."""
        return sum(path.stat().st_size for path in (*self.files, *self.projectors))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is skipped, and why."""

    path: Path
    reason: str


def find(paths: Iterable[Path], stopped: Callable[[], bool] = lambda: False) -> tuple[list[Found], list[Skipped]]:
    """Scan files and folders, recursively. Raises InvalidCreateError if a path is relative or missing.

    A scan of a disk may take minutes. It ends early once `stopped()` is true, and the result then has no meaning.
    """
    skipped: list[Skipped] = []
    models: dict[Path, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    projectors: dict[Path, list[Path]] = defaultdict(list)
    # A file may be reached twice, by its own path and by its folder's.
    for path in dict.fromkeys(each for start in paths for each in _files(start, stopped)):
        if stopped():
            break
        try:
            kind = _kind(path)
        except (OSError, GGUFError) as error:
            skipped.append(Skipped(path, f"it cannot be read: {error}"))
            continue
        if kind == media_types.PROJECTOR:
            projectors[path.parent].append(path)
        elif kind == media_types.ADAPTER:
            skipped.append(Skipped(path, "it is an adapter: name it in a Modelfile, after ADAPTER"))
        else:
            models[path.parent][_prefix(path)].append(path)
    found = []
    for folder, groups in models.items():
        for stem, files in groups.items():
            if reason := _incomplete(files):
                skipped.append(Skipped(files[0], reason))
                continue
            beside = _projectors(stem, [_base(each) for each in groups], projectors[folder])
            found.append(Found(name=name_of(stem, folder), files=tuple(sorted(files)), projectors=beside))
    used = {path for each in found for path in each.projectors}
    lonely = [path for each in projectors.values() for path in each if path not in used]
    skipped += [Skipped(path, "it is a projector, and no model beside it is known to be its own") for path in lonely]
    return _distinct(found, skipped), skipped


def find_opaque(paths: Iterable[Path]) -> tuple[list[Found], list[Skipped]]:
    """Take each file, and each folder with all that is in it, for a model. Raises InvalidCreateError as `find` does."""
    found, skipped = [], []
    for path in dict.fromkeys(paths):
        if not path.is_absolute():
            raise InvalidCreateError(f"{path}: the path must be absolute")
        if not path.exists():
            raise InvalidCreateError(f"{path}: no such file or directory")
        try:
            files = files_of(path)
        except (ValueError, OSError) as error:
            skipped.append(Skipped(path, str(error)))
            continue
        name = name_of("", path) if path.is_dir() else name_of(path.stem, path.parent)
        found.append(Found(name=name, files=tuple(files.values()), names=tuple(files)))
    return _distinct(found, skipped), skipped


def _files(start: Path, stopped: Callable[[], bool]) -> Iterator[Path]:
    """Yield a file, or all GGUF files below a folder. Links to files are followed, links to folders are not."""
    if not start.is_absolute():
        raise InvalidCreateError(f"{start}: the path must be absolute")
    if start.is_file():
        yield start
    elif start.is_dir():
        for folder, folders, names in os.walk(start):
            if stopped():
                return
            folders.sort()
            for name in sorted(names):
                if name.lower().endswith(SUFFIX) and (Path(folder) / name).is_file():
                    yield Path(folder) / name
    else:
        raise InvalidCreateError(f"{start}: no such file or directory")


def _kind(path: Path) -> str:
    if not gguf.is_gguf(path):
        raise GGUFError("it is no GGUF file")
    return media_type_of(gguf.read(path))


def _prefix(path: Path) -> str:
    """Return a file's name without the extension and the shard numbers."""
    match = SHARD.fullmatch(path.name)
    return match["prefix"] if match else path.name[: -len(SUFFIX)] if path.name.lower().endswith(SUFFIX) else path.name


def _incomplete(files: list[Path]) -> str:
    matches = [SHARD.fullmatch(path.name) for path in files]
    counts = {int(match["count"]) for match in matches if match}
    if not counts and len(files) == 1:
        return ""
    if len(counts) != 1 or not all(matches):
        return "it is unclear which parts of the split model belong together"
    (count,) = counts
    return "" if len(files) == count else f"only {len(files)} of the {count} parts of the split model are there"


def _base(stem: str) -> str:
    match = _TYPED.fullmatch(stem)
    return (match["base"] if match else stem).lower()


def name_of(stem: str, folder: Path) -> str:
    """Suggest a name: the file's in lower case with its type as tag, or the folder's if the file's is generic."""
    if _TYPE.fullmatch(stem):
        base, tag = "", stem
    else:
        match = _TYPED.fullmatch(stem)
        base, tag = (match["base"], match["type"]) if match else (stem, "latest")
    if base.lower() in _NAMELESS:
        # A cache of Hugging Face has folders such as "snapshots/<revision>" between the model's folder and the file.
        parent = next((each for each in (folder, *folder.parents) if not _REVISION.fullmatch(each.name)), folder)
        # In that cache a folder is called "models--MAKER--NAME".
        base = _FOLDER_SUFFIX.sub("", parent.name.rpartition("--")[2])
    return f"{_plain(base) or 'model'}:{_plain(tag) or 'latest'}"


def _plain(text: str) -> str:
    return _UNNAMEABLE.sub("-", text.lower()).strip("-.")[:_LONGEST]


def _projectors(stem: str, bases: list[str], beside: list[Path]) -> tuple[Path, ...]:
    """Choose the projector of a model: one with the model's name, or the folder's if all its files are one model."""
    own = _base(stem)
    # A projector with another model's name must not be taken, even if it is the only one in the folder.
    named = [path for path in beside if _stripped(path) not in _NAMELESS and own.startswith(_stripped(path))]
    nameless = [path for path in beside if _stripped(path) in _NAMELESS] if len(set(bases)) == 1 else []
    return tuple(sorted(named or nameless, key=_preference)[:1])


def _stripped(path: Path) -> str:
    """Return the model name in the name of a projector: "gemma-3-4b-it" for "mmproj-gemma-3-4b-it-f16.gguf"."""
    text = _PROJECTOR.sub("", _prefix(path))
    return "" if _TYPE.fullmatch(text) else _PROJECTOR.sub("", _base(text))


def _preference(path: Path) -> tuple[int, str]:
    match = _TYPED.fullmatch("x-" + _PROJECTOR.sub("", _prefix(path)))
    kind = match["type"].lower() if match else ""
    return _PREFERRED.index(kind) if kind in _PREFERRED else len(_PREFERRED), path.name


def _distinct(found: list[Found], skipped: list[Skipped]) -> list[Found]:
    kept: dict[str, Found] = {}
    for each in found:
        # Two models of one name would replace each other, and the order of a scan must not decide.
        if each.name in kept:
            first = kept[each.name].files[0]
            skipped.append(Skipped(each.files[0], f"{first} would be called {each.name} too: import it by itself"))
        else:
            kept[each.name] = each
    return list(kept.values())
