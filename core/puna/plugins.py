"""Backend plugins, found by their entry points.

Names are known without importing anything. A plugin is imported at its first use; one that fails to import is listed
as broken and stops nothing else.
"""

import importlib.util
import logging
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Self

from puna.backend import ENTRY_POINT_GROUP, Backend
from puna.errors import BackendNotFoundError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """A description of an installed plugin."""

    name: str
    distribution: str = ""
    """The distribution that brings it; empty when unknown."""
    version: str = ""
    formats: tuple[str, ...] = ()
    """Model formats it serves; empty when it is broken."""
    needs_host: bool = True
    """Whether each of its models runs in a process of its own."""
    error: str = ""
    """Why it cannot be used; empty when it can."""


class MissingLibraryError(Exception):
    """A module that a backend requires is not installed."""

    def __init__(self, backend: type[Backend], missing: Sequence[str]) -> None:
        """The text names the missing modules and the command that installs them."""
        text = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        super().__init__(f"{text}; to install: {backend.install_command}" if backend.install_command else text)
        self.backend = backend


class Registry:
    """The installed backends. Importing one runs its module's code, in the calling thread."""

    def __init__(self, entries: Iterable[EntryPoint]) -> None:
        """Of several entries with one name the first counts."""
        self._entries: dict[str, EntryPoint] = {}
        self._backends: dict[str, Backend] = {}
        self._errors: dict[str, str] = {}
        self._without_library: dict[str, type[Backend]] = {}
        """The broken backends that only lack a library."""
        for entry in entries:
            if entry.name in self._entries:
                log.warning("backend %r is installed twice: %s is left out", entry.name, entry.value)
            # The first one wins, and the log names the one that is left out.
            self._entries.setdefault(entry.name, entry)

    @classmethod
    def discover(cls) -> Self:
        """Find all plugins in this Python environment, without importing them."""
        return cls(entry_points(group=ENTRY_POINT_GROUP))

    def names(self) -> tuple[str, ...]:
        """Return the names of all plugins, including broken ones, in alphabetical order."""
        return tuple(sorted(self._entries))

    def get(self, name: str) -> Backend:
        """Return a backend, importing it at the first call. Raises BackendNotFoundError if it is missing or broken."""
        if name not in self._backends and name not in self._errors:
            if name not in self._entries:
                installed = ", ".join(self.names()) or "none"
                raise BackendNotFoundError(f"backend {name!r} is not installed (installed: {installed})")
            self._load(self._entries[name])
        # An import that failed is not tried again: it may have left half of a module behind.
        if name in self._errors:
            raise BackendNotFoundError(f"backend {name!r} is broken: {self._errors[name]}")
        return self._backends[name]

    def for_model(self, format: str, wanted: str = "", default: str = "") -> str:  # noqa: A002 (the domain's word)
        """Return the name of the backend that serves a model.

        `wanted` is the backend that the model names; it wins. Otherwise `default`, that of the server, is used if it
        serves the format, and otherwise the backend of the largest preference. Raises BackendNotFoundError.
        """
        if wanted:
            self.get(wanted)
            return wanted
        if default and format in self.get(default).formats:
            return default
        usable: list[tuple[int, str]] = []
        for name in self.names():
            # A broken backend must not keep the others from serving.
            with suppress(BackendNotFoundError):
                if format in self.get(name).formats:
                    # Negated, so that min() finds the largest preference and, among equals, the first name.
                    usable.append((-self.get(name).preference, name))
        if not usable:
            raise BackendNotFoundError(self._nothing_serves(format))
        return min(usable)[1]

    def _nothing_serves(self, format: str) -> str:  # noqa: A002
        """Return why no backend serves a format, beginning with how to install the most preferred one."""
        text = f"no installed backend serves models of format {format!r}"
        lacking = [(-each.preference, name) for name, each in self._without_library.items() if format in each.formats]
        return "; ".join([text, *(f"backend {name!r} is broken: {self._errors[name]}" for _, name in sorted(lacking))])

    def quantizer(self) -> str:
        """Return the module of the most preferred backend's quantizer; empty if no usable backend has one."""
        found: list[tuple[int, str, str]] = []
        for name in self.names():
            with suppress(BackendNotFoundError):
                backend = self.get(name)
                if backend.quantizer:
                    found.append((-backend.preference, name, backend.quantizer))
        return min(found)[2] if found else ""

    def describe(self) -> list[PluginInfo]:
        """Return a description of each plugin, in order of names. Imports all of them."""
        return [self._info(self._entries[name]) for name in self.names()]

    def _info(self, entry: EntryPoint) -> PluginInfo:
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
        try:
            backend = self.get(entry.name)
        except BackendNotFoundError:
            return PluginInfo(
                name=entry.name, distribution=distribution, version=version, error=self._errors[entry.name]
            )
        return PluginInfo(
            name=entry.name,
            distribution=distribution,
            version=version,
            formats=tuple(backend.formats),
            needs_host=backend.needs_host,
        )

    def _load(self, entry: EntryPoint) -> None:
        try:
            backend_class = entry.load()
            if not (isinstance(backend_class, type) and issubclass(backend_class, Backend)):
                raise TypeError(f"{entry.value} is not a Backend subclass")
            # Looked up and not imported: the libraries are for the host process and may take seconds or crash.
            missing = [name for name in backend_class.requires if not _is_installed(name)]
            if missing:
                raise MissingLibraryError(backend_class, missing)
            self._backends[entry.name] = backend_class()
        except MissingLibraryError as error:
            self._errors[entry.name] = str(error)
            self._without_library[entry.name] = error.backend
        except Exception as error:  # a stranger's code may raise anything
            log.exception("backend plugin %r is left out", entry.name)
            self._errors[entry.name] = str(error) or type(error).__name__


def _is_installed(module: str) -> bool:
    # find_spec raises ValueError for a loaded module without a spec, so loaded modules are looked up first.
    return module in sys.modules or importlib.util.find_spec(module) is not None
