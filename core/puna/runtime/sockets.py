"""Where hosts listen: a folder that only its owner may enter, of a path short enough for a socket's address."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS_BYTES = 107
"""What a Unix socket's address may have, the closing zero not counted."""
OURS = "/puna-12345678/123456.r"
"""What we put after the folder that we are given."""


@contextmanager
def folder(parent: Path | None = None) -> Iterator[Path]:
    """Make the folder, in `parent` or the user's runtime folder, and remove it at the end. OSError: nowhere to."""
    path = tempfile.mkdtemp(prefix="puna-", dir=parent or _runtime_folder())  # mode 0700
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _runtime_folder() -> str:
    for path in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()):
        fits = len(os.fsencode(path + OURS)) <= ADDRESS_BYTES
        if Path(path).is_absolute() and fits and os.access(path, os.W_OK | os.X_OK):
            return path
    return "/tmp"  # the shortest that every system has
