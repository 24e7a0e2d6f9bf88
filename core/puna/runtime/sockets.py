"""Where hosts listen: a folder that only its owner may enter, of a path short enough for a socket's address."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from puna.process import temporary_folders
from puna.process.temporary_folders import Scratch

ADDRESS_BYTES = 107
"""What a Unix socket's address may have, the closing zero not counted."""
OURS = "/puna-12345678/123456.r"
"""What we put after the folder that we are given."""


class Sockets:
    """Gives each host a path of its own."""

    def __init__(self, folder: Scratch) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    def next(self) -> Path:
        """Return where the next host listens. A folder that was removed is made anew. OSError: nowhere to."""
        return self._folder.path / str(next(self._numbers))


@contextmanager
def folder(parent: Path | None = None) -> Iterator[Sockets]:
    """Make the folder, in `parent` or the user's runtime folder, and remove it at the end. OSError: nowhere to.

    What dead servers have left there, and where temporary files go, is removed first.
    """
    parent = parent or Path(_runtime_folder())
    for each in {parent, Path(tempfile.gettempdir())}:
        temporary_folders.sweep(each)
    with Scratch(parent) as made:
        yield Sockets(made)


def _runtime_folder() -> str:
    for path in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()):
        fits = len(os.fsencode(path + OURS)) <= ADDRESS_BYTES
        if Path(path).is_absolute() and fits and os.access(path, os.W_OK | os.X_OK):
            return path
    return "/tmp"  # the shortest that every system has
