"""Where backends are found: entry points of Python distributions, and a folder of manifests.

A distribution announces a backend by an entry point of the group `puna.backends`. Its manifest lies in the folder of
the entry point's top-level package: `NAME.backend.toml`, or `backend.toml`. A module of one file, `puna_echo.py`, has
`puna_echo.backend.toml` beside it. The package is looked up and not imported.

The folder of manifests has one sub-folder for each backend. A sub-folder holds a `backend.toml`, or a virtual
environment `venv` with a distribution that announces backends.

All of this is written by third parties. Whatever cannot be read becomes a backend with a fault and harms no other.
"""

import importlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final

from puna.plugins.environment import Announced, Environment
from puna.plugins.installed import InstalledPlugin, is_link
from puna.plugins.manifest import CLASS, NAME, NAME_FORM, Manifest, ManifestError, read
from puna.plugins.plugin import Plugin
from puna.plugins.table import plain, shown

log = logging.getLogger(__name__)

FILE: Final = "backend.toml"
OURS: Final = "puna"
"""The distribution whose backends cannot be taken over by another's."""


class Installed:
    """The backends of this Python environment and of a folder of manifests."""

    def __init__(self, folder: Path | None = None, only: Sequence[str] = ()) -> None:
        """`folder`: the folder of manifests; None: none. `only`: the names to use, as in PUNA_PLUGINS; empty: all."""
        self._folder = folder
        self._only = only
        self._watched: tuple[Path, ...] = ()

    def find(self) -> list[Plugin]:
        """Return all backends, with unique names."""
        # Finders remember what a folder holds for as long as its time of change stays the same.
        importlib.invalidate_caches()
        found = [*_in_environment(Environment.current()), *_in_folder(self._folder)]
        self._watched = tuple(dict.fromkeys(path for each in found for path in each.watched))
        if self._only:
            found = [each for each in found if each.name in self._only]
            for name in sorted(set(self._only) - {each.name for each in found}):
                log.warning("PUNA_PLUGINS names the backend %r, which is not installed", shown(name))
        return [replace(each, error=plain(each.error)) for each in _unique(found)]

    def fingerprint(self) -> dict[Path, object]:
        """Return the state of each file and folder whose change may change the list."""
        folders = [Path(each or ".") for each in sys.path]
        if self._folder is not None:
            folders += [self._folder, *_sub_folders(self._folder)]
        return {path: _stamp(path) for path in (*folders, *self._watched)}


def manifest_of(module: str, name: str = "", environment: Environment | None = None) -> Path:
    """Return the manifest of a backend whose code is in the top-level package of `module`.

    Raises ManifestError, which says where to put a manifest, if there is none.
    """
    top = module.partition(".")[0]
    spec = (environment or Environment.current()).spec(top)
    if spec is None:
        raise ManifestError(f"there is no module {top!r}")
    if spec.submodule_search_locations is not None:
        names = [f"{name}.{FILE}", FILE] if name else [FILE]
        places = [Path(folder) / each for folder in spec.submodule_search_locations for each in names]
    else:
        places = [Path(spec.origin or top).with_name(f"{top}.{FILE}")]
    for place in places:
        if place.exists():
            return place
    wanted = places[-1] if places else Path(top) / FILE
    raise ManifestError(f"it has no manifest: {wanted} is missing; plugins/README.md of Puna describes the file")


# ---- where to look ---------------------------------------------------------------------------------------------------


def _in_environment(environment: Environment) -> Iterator[Plugin]:
    for distribution in environment.announced():
        # The environment of a plugin may contain Puna itself, whose backends are not the plugin's.
        if environment.is_own and distribution.name == OURS:
            continue
        if distribution.error:
            yield Plugin(name=shown(distribution.name), error=distribution.error)
        for entry in distribution.entries:
            yield _announced(entry, distribution, environment)


def _announced(entry: EntryPoint, by: Announced, environment: Environment) -> Plugin:
    plugin = Plugin(name=shown(entry.name), distribution=by.name, version=by.version)
    if not re.fullmatch(NAME, entry.name):
        return replace(plugin, error=f"the entry point's name must be {NAME_FORM}")
    if not re.fullmatch(CLASS, entry.value):
        return replace(plugin, error=f'the entry point must have the form "module:Class", not {shown(entry.value)!r}')
    watched: tuple[Path, ...] = ()
    try:
        path = manifest_of(entry.value.partition(":")[0], entry.name, environment)
        watched = (path, path.parent)
        manifest = read(path, python_class=entry.value)
        if manifest.name != entry.name:
            raise ManifestError(f"{path}: name: must be {entry.name!r}, the name of the entry point")
    except ManifestError as error:
        return replace(plugin, error=str(error), watched=watched)
    return _started(replace(plugin, manifest=manifest, watched=watched), manifest, environment)


def _in_folder(folder: Path | None) -> Iterator[Plugin]:
    for sub in _sub_folders(folder) if folder is not None else ():
        manifest = sub / FILE
        # The link of an installed plugin leads elsewhere after an upgrade, when hosts still run from here.
        home = Path(os.path.realpath(sub))
        if os.path.lexists(manifest):
            environment = Environment.below(home)
            plugin = described(manifest, environment)
            yield replace(plugin, environment=str(home)) if environment is not None else plugin
        elif os.path.lexists(home / "venv") or is_link(sub):
            yield from in_environment(home, sub.name)
        else:
            yield Plugin(name=shown(sub.name), error=f"it has no manifest: {manifest} is missing")


def in_environment(home: Path, name: str) -> list[Plugin]:
    """Return the backends of the virtual environment `home`/venv. `name` is shown if there is no such environment."""
    environment = Environment.below(home)
    if environment is None:
        return _without_python(home, name)
    watched = tuple(Path(each) for each in environment.folders or ())
    return [
        replace(each, environment=str(home), watched=(*each.watched, *watched)) for each in _in_environment(environment)
    ]


def _without_python(home: Path, name: str) -> list[Plugin]:
    text = f"the Python of its environment is missing: {home / 'venv'}; puna plugin"
    watched = (home / "venv" / "bin",)
    try:
        record = InstalledPlugin.read(home)
    except (OSError, ValueError):
        # Without a record it is not known from where the plugin came.
        return [Plugin(name=shown(name), error=f"{text} remove {name}", watched=watched)]
    text = f"{text} upgrade {name}"
    return [
        Plugin(name=each, distribution=record.distribution, version=record.version, error=text, watched=watched)
        for each in map(shown, record.backends)
    ]


def described(path: Path, environment: Environment | None = None) -> Plugin:
    """Return the backend that a manifest outside of a distribution describes. `environment` is that of its host."""
    environment = environment or Environment.current()
    # A link leads to the plugin's own folder, to which the paths in the manifest are relative.
    real = Path(os.path.realpath(path))  # unlike resolve, it raises nothing for a link to itself
    watched = (path, real, real.parent)
    try:
        manifest = read(real)
    except ManifestError as error:
        return Plugin(name=shown(path.parent.name), error=str(error), watched=watched)
    plugin = Plugin(name=manifest.name, manifest=manifest, python_path=str(real.parent), watched=watched)
    return _started(plugin, manifest, environment)


def _sub_folders(folder: Path) -> list[Path]:
    """Return the folders of backends. Names that begin with a dot or an underscore are left to programs."""
    try:
        return sorted(
            each for each in folder.iterdir() if each.name[0] not in "._" and (each.is_dir() or is_link(each))
        )
    except OSError:
        return []


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


# ---- how a host is started -------------------------------------------------------------------------------------------


def _started(plugin: Plugin, manifest: Manifest, environment: Environment) -> Plugin:
    """Add how the backend's host is started, or why it cannot be."""
    try:
        if manifest.host.command:
            command = (_program(manifest), *manifest.host.command[1:])
            return replace(plugin, command=command, own_python=True)
        module = manifest.host.python_class.partition(".")[0].partition(":")[0]
        extra = Path(plugin.python_path) if plugin.python_path else None
        if environment.spec(module, extra) is None:
            raise ManifestError(f"{manifest.path}: host.class: there is no module {module!r}")
        _check_requirements(manifest, environment)
    except ManifestError as error:
        return replace(plugin, error=str(error))
    # -P: a file in the current folder must not shadow a module.
    command = (environment.python, "-P", "-m", "puna.host", manifest.host.python_class)
    return replace(plugin, command=command, own_python=environment.is_own)


def _program(manifest: Manifest) -> str:
    """Return the absolute path of the program that a manifest names."""
    program = manifest.host.command[0]
    place = str(manifest.path.parent / program) if "/" in program else shutil.which(program)
    if place is None or not (found := Path(place)).is_file() or not os.access(found, os.X_OK):
        where = "on PATH" if "/" not in program else "that can be run"
        raise ManifestError(f"{manifest.path}: host.command: there is no program {program!r} {where}")
    return str(found.absolute())


def _check_requirements(manifest: Manifest, environment: Environment) -> None:
    """Raise ManifestError with the missing modules and the command that installs them."""
    missing = [each for each in manifest.requires if not environment.has(each)]
    if missing:
        text = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        raise ManifestError(f"{text}; to install: {manifest.install}" if manifest.install else text)


# ---- unique names ----------------------------------------------------------------------------------------------------


def _unique(found: Iterable[Plugin]) -> list[Plugin]:
    """Give a fault to each backend whose name is taken. Of those of one name, the one that can be used comes first."""
    by_name: dict[str, list[Plugin]] = {}
    for each in found:
        by_name.setdefault(each.name, []).append(each)
    return [each for same in by_name.values() for each in _settled(same)]


def _settled(same: list[Plugin]) -> list[Plugin]:
    if len(same) == 1:
        return same
    ours = [each for each in same if each.distribution == OURS][:1]
    origins = " and ".join(_origin(each) for each in same)
    text = "the name belongs to a backend of Puna" if ours else f"the name is taken more than once, by {origins}"
    return [*ours, *(replace(each, error=text) for each in same if each not in ours)]


def _origin(plugin: Plugin) -> str:
    if plugin.distribution:
        return f"{plugin.distribution} {plugin.version}".strip()
    return str(plugin.manifest.path) if plugin.manifest is not None else "a folder of manifests"
