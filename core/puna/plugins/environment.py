"""A Python environment whose packages are looked up without importing any of them."""

import importlib.util
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Self

from puna.backend import ENTRY_POINT_GROUP
from puna.plugins.installed import InstalledPlugin
from puna.plugins.table import ManifestError, shown

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A distribution with the backends that it announces."""

    name: str
    version: str
    entries: tuple[EntryPoint, ...]
    error: str = ""
    """Why its metadata cannot be read; `name` is then that of its file."""


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter and the folders in which it finds modules."""

    python: str
    folders: tuple[str, ...] | None = None
    """None: those of the running interpreter."""

    @classmethod
    def current(cls) -> Self:
        """Return the environment of this process."""
        return cls(sys.executable)

    @classmethod
    def below(cls, folder: Path) -> Self | None:
        """Return the virtual environment `folder`/venv; None if there is none.

        The installer has recorded where its interpreter finds modules, which path files may change.
        """
        python = folder / "venv" / "bin" / "python"
        if not python.exists():
            return None
        try:
            folders = InstalledPlugin.read(folder).paths
        except (OSError, ValueError):
            folders = tuple(map(str, sorted(folder.glob("venv/lib*/python*/site-packages"))))
        return cls(str(python), folders)

    @property
    def is_own(self) -> bool:
        """Whether it is another environment than that of this process."""
        return self.folders is not None

    def spec(self, module: str, extra: Path | None = None) -> ModuleSpec | None:
        """Return where a top-level module lies, without importing it; None: nowhere. `extra` is looked in first.

        Raises ManifestError if looking fails, since finders are code of the environment.
        """
        try:
            if extra is not None and (spec := PathFinder.find_spec(module, [str(extra)])) is not None:
                return spec
            if self.folders is not None:
                return PathFinder.find_spec(module, list(self.folders))
            # Not find_spec alone, which raises ValueError for a loaded module without a spec.
            return getattr(sys.modules.get(module), "__spec__", None) or importlib.util.find_spec(module)
        except Exception as error:  # a finder may raise anything
            raise ManifestError(f"looking for the module {module!r} failed: {shown(repr(error))}") from error

    def has(self, module: str) -> bool:
        """Return whether a top-level module is installed."""
        return (self.folders is None and module in sys.modules) or self.spec(module) is not None

    def announced(self) -> Iterator[Announced]:
        """Yield the distributions that announce backends. Of two of one name the first counts, as for imports."""
        found = distributions() if self.folders is None else distributions(path=list(self.folders))
        seen: set[str] = set()
        for each in found:
            read = _announced(each)
            if read is not None and (key := re.sub(r"[-_.]+", "-", read.name).lower()) not in seen:
                seen.add(key)
                yield read


def _announced(distribution: Distribution) -> Announced | None:
    """Read the metadata of one distribution; None: it announces no backend."""
    try:
        # The text first: parsing the metadata of every distribution would take long.
        if ENTRY_POINT_GROUP not in (distribution.read_text("entry_points.txt") or ""):
            return None
        entries = tuple(each for each in distribution.entry_points if each.group == ENTRY_POINT_GROUP)
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if not isinstance(name, str) or not name:
            raise ValueError("it has no name")
    except Exception as error:  # metadata by third parties makes its parsers raise anything
        name = Path(str(getattr(distribution, "_path", "unknown"))).stem
        return Announced(name=name, version="", entries=(), error=f"its metadata cannot be read: {shown(repr(error))}")
    return Announced(name=shown(name), version=shown(version or ""), entries=entries) if entries else None
