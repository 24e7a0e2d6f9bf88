"""The sockets on which hosts listen, in a folder that only its owner may enter.

The path of the folder is short, since the address of a Unix socket has room for about a hundred bytes.
"""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from puna.process import temporary_folders
from puna.process.temporary_folders import Scratch

ADDRESS_BYTES = 107
"""Longest path of a Unix socket, without the terminating zero."""
SUFFIX = "/puna-12345678/123456.r"
"""An example of the path below the parent folder; only its length counts."""


class Sockets:
    """Gives each host a path of its own in one folder."""

    def __init__(self, folder: Scratch) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    def next(self) -> Path:
        """Return the path for the next host. A folder that was removed meanwhile is made anew. Raises OSError."""
        return self._folder.path / str(next(self._numbers))


@contextmanager
def folder(parent: Path | None = None) -> Iterator[Sockets]:
    """Make the folder in `parent`, or in the user's runtime folder, and remove it at the end. Raises OSError.

    Folders that dead servers left there, or among the temporary files, are removed first.
    """
    parent = parent or Path(_runtime_folder())
    for each in {parent, Path(tempfile.gettempdir())}:
        temporary_folders.sweep(each)
    # The folder's mode keeps other users away from the sockets, which have no other protection.
    with Scratch(parent) as made:
        yield Sockets(made)


def _runtime_folder() -> str:
    # The runtime folder belongs to the user and lies in memory. Services often have none.
    for path in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()):
        fits = len(os.fsencode(path + SUFFIX)) <= ADDRESS_BYTES
        if Path(path).is_absolute() and fits and os.access(path, os.W_OK | os.X_OK):
            return path
    return "/tmp"  # short, and present on every system
