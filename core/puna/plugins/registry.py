"""The list of installed backends, and the choice of the backend for a model.

Reading the list touches the disk, so it happens once and again only when something has changed; see
`Registry.refresh`. No call here imports or runs a plugin.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from puna.errors import BackendNotFoundError
from puna.plugins.discovery import Installed
from puna.plugins.manifest import Manifest
from puna.plugins.plugin import Plugin
from puna.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Listing:
    """The backends in order of their names."""

    all: tuple[Plugin, ...]
    by_name: dict[str, Plugin]
    """Of several with one name, the one that can be used if there is one."""
    fingerprint: Mapping[Path, object]
    """The state of the files and folders that it was read from."""


class Registry:
    """The installed backends. Its methods may be called from any thread."""

    def __init__(
        self,
        find: Callable[[], Iterable[Plugin]],
        fingerprint: Callable[[], Mapping[Path, object]] = dict,
        only: Sequence[str] = (),
    ) -> None:
        """`find` lists the backends; of several with one name the first counts.

        `fingerprint` returns the state of what `find` reads. It is called before and after `find`. `only` are the names
        to which PUNA_PLUGINS limits the list, for errors; empty: it does not.
        """
        self._find = find
        self._fingerprint = fingerprint
        self._only = only
        self._current: _Listing | None = None

    @classmethod
    def discover(cls, settings: Settings | None = None) -> Self:
        """Return the backends of this Python environment and, with `settings`, those of the folder of manifests."""
        installed = Installed(settings.plugins_folder, settings.plugins) if settings else Installed()
        return cls(installed.find, installed.fingerprint, settings.plugins if settings else ())

    def refresh(self) -> bool:
        """Read the list again if something was installed, changed or removed; return whether the list was read.

        Cheap when nothing has changed: some system calls for each folder of plugins.
        """
        fingerprint = self._fingerprint()
        current = self._current
        if current is not None and current.fingerprint == fingerprint:
            return False
        self._read(fingerprint)
        return True

    def names(self) -> tuple[str, ...]:
        """Return the names of all backends, including those that cannot be used, in alphabetical order."""
        return tuple(self._plugins())

    def describe(self) -> list[Plugin]:
        """Return all backends, including those that cannot be used, in order of names."""
        return list(self._listing().all)

    def get(self, name: str) -> Plugin:
        """Return a backend that can be used. Raises BackendNotFoundError if it is missing or has a fault."""
        plugins = self._plugins()
        # It may have been installed a moment ago.
        if name not in plugins and self.refresh():
            plugins = self._plugins()
        if name not in plugins:
            if self._only and name not in self._only:
                raise BackendNotFoundError(f"backend {name!r} is not used: PUNA_PLUGINS does not name it")
            installed = ", ".join(plugins) or "none"
            raise BackendNotFoundError(f"backend {name!r} is not installed (installed: {installed})")
        if plugins[name].error:
            raise BackendNotFoundError(f"backend {name!r} is broken: {plugins[name].error}")
        return plugins[name]

    def for_model(self, format: str, wanted: str = "", default: str = "") -> str:  # noqa: A002 (the domain's word)
        """Return the name of the backend that serves a model.

        `wanted` is the backend that the configuration or the model names; it wins. Otherwise `default`, that of the
        server, is used if it serves the format, and otherwise the backend of the largest preference. Raises
        BackendNotFoundError.
        """
        if wanted:
            plugin = self.get(wanted)
            # An opaque model has no format if it has no files. A backend without formats takes only such models.
            if format and format not in plugin.formats:
                raise BackendNotFoundError(f"backend {wanted!r} does not serve models of format {format!r}")
            return plugin.name
        if default and format in self.get(default).formats:
            return default
        served = [each for each in self._preferred() if format in each.formats]
        if not served:
            raise BackendNotFoundError(self._nothing_serves(format))
        return served[0].name

    def quantizer(self) -> str:
        """Return the module of the most preferred backend's quantizer; empty if no usable backend has one."""
        # A module of another environment cannot be run with this interpreter.
        usable = (each for each in self._preferred() if not each.error and not each.own_python)
        return next((each.usable.quantizer for each in usable if each.usable.quantizer), "")

    def _preferred(self) -> list[Plugin]:
        """Return the backends with a manifest, the most preferred first, and among equals by name."""
        known = [each for each in self._plugins().values() if each.manifest is not None]
        return sorted(known, key=lambda each: -_manifest(each).preference)

    def _nothing_serves(self, format: str) -> str:  # noqa: A002
        """Return why no backend serves a format, beginning with how to install the most preferred one."""
        text = f"no installed backend serves models of format {format!r}"
        lacking = [each for each in self._preferred() if each.error and format in _manifest(each).formats]
        return "; ".join([text, *(f"backend {each.name!r} is broken: {each.error}" for each in lacking)])

    def _plugins(self) -> dict[str, Plugin]:
        return self._listing().by_name

    def _listing(self) -> _Listing:
        return self._current or self._read(self._fingerprint())

    def _read(self, before: Mapping[Path, object]) -> _Listing:
        found = tuple(sorted(self._find(), key=lambda each: each.name))
        # A file that this reading has found is in the second state only. Of the others the first state is kept, so that
        # a change during the reading is noticed by the next refresh.
        after = self._fingerprint()
        fingerprint = {path: before.get(path, state) for path, state in after.items()}
        by_name: dict[str, Plugin] = {}
        for each in found:
            by_name.setdefault(each.name, each)
        # Replaced in one step: other threads see the old list or the new one.
        self._current = listing = _Listing(found, by_name, fingerprint)
        return listing


def _manifest(plugin: Plugin) -> Manifest:
    assert plugin.manifest is not None, "only backends with a manifest are sorted"
    return plugin.manifest
