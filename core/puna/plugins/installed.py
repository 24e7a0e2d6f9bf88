"""The environments that `puna plugin install` made, as the server reads them.

Theory. In the plugins folder, each installed plugin is a symbolic link, named like its distribution, to an environment:

    puna-echo -> .environments/5f0c2a9d
    .environments/5f0c2a9d/plugin.json      the record: what is installed, and its backends
    .environments/5f0c2a9d/venv/            the virtual environment
    .environments/5f0c2a9d/in-use           locked for as long as a host runs from here

An environment is built and tried at its final path, and the link is set last. Renaming a link is atomic, so a reader
sees the old plugin or the new one. An environment without a link does not exist for readers; the next change to the
folder removes it, unless a host still runs from it: each host holds a shared lock on `in-use`, which ends with it
however it ends, and only an environment that can be locked exclusively is removed.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self

from puna import atomic_files, formats

ENVIRONMENTS: Final = ".environments"
"""The sub-folder of the environments. Its dot keeps it out of the list of plugins."""
RECORD: Final = "plugin.json"
IN_USE: Final = "in-use"
MAX_RECORD_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPlugin:
    """A plugin and its environment."""

    folder: Path
    """The folder of the environment, not the link to it: a later upgrade moves the link and leaves this path alone."""
    distribution: str
    version: str
    spec: str
    """What the user asked to install: a requirement, a path or a URL."""
    editable: bool = False
    python: str = ""
    """The version or interpreter that the user asked for; empty: that of Puna."""
    packages: tuple[str, ...] = ()
    """All distributions in it, each as "name==version"."""
    backends: tuple[str, ...] = ()
    """Names of its backends: those of its entry points."""
    paths: tuple[str, ...] = ()
    """Folders in which its interpreter finds the modules of distributions."""

    @property
    def interpreter(self) -> Path:
        """The Python that runs the plugin's hosts."""
        return self.folder / "venv" / "bin" / "python"

    def write(self) -> None:
        """Write the record. Raises OSError."""
        record = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "folder"}
        # For its owner alone, since a URL may hold a token.
        atomic_files.write(
            self.folder / RECORD, json.dumps(formats.PLUGIN.versioned(record), indent=2).encode() + b"\n"
        )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record of an environment.

        Raises OSError, NewerFormatError among them, or ValueError if it is not a record.
        """
        with (folder / RECORD).open("rb") as file:
            record = json.loads(file.read(MAX_RECORD_BYTES + 1))
        if not isinstance(record, dict):
            raise ValueError(f"{RECORD} is not a JSON object")
        formats.PLUGIN.check(folder / RECORD, record)
        return cls(
            folder=folder,
            distribution=_text(record, "distribution"),
            version=_text(record, "version"),
            spec=_text(record, "spec"),
            editable=record.get("editable") is True,
            python=_text(record, "python"),
            packages=_texts(record, "packages"),
            backends=_texts(record, "backends"),
            paths=_texts(record, "paths"),
        )


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A plugin whose environment or record is damaged."""

    name: str
    """The name of its link."""
    fault: str


def read_all(folder: Path) -> Iterator[InstalledPlugin | Unreadable]:
    """Return the plugins that are installed in a plugins folder, in order of names."""
    for link in links(folder):
        try:
            environment = InstalledPlugin.read(link.resolve())
        except formats.NewerFormatError as error:
            yield Unreadable(link.name, str(error.strerror))
            continue
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
            yield Unreadable(link.name, f"its environment is damaged ({reason}); puna plugin remove {link.name}")
            continue
        yield environment


def links(folder: Path) -> list[Path]:
    """Return the links of installed plugins, in order of names."""
    try:
        return sorted(each for each in folder.iterdir() if is_link(each))
    except OSError:
        return []


def is_link(path: Path) -> bool:
    """Return whether a path is the link of an installed plugin. A link to anywhere else is the operator's own."""
    try:
        return path.is_symlink() and path.readlink().parent == Path(ENVIRONMENTS)
    except OSError:
        return False


@contextmanager
def holding(folder: Path) -> Iterator[tuple[int, ...]]:
    """Give the file descriptor that keeps an environment from being removed while any process has it open.

    A host that is started meanwhile inherits it. There is none if the environment was not made by the installer, or is
    gone. Raises BlockingIOError if it is just being removed.
    """
    try:
        descriptor = os.open(folder / IN_USE, os.O_RDONLY)
    except FileNotFoundError:
        yield ()
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield (descriptor,)
    finally:
        os.close(descriptor)


def _text(record: Mapping[str, object], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{RECORD}: {name} is not a text")
    return value


def _texts(record: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{RECORD}: {name} is not a list of texts")
    return tuple(value)
