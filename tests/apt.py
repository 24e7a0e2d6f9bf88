"""One apt-get at a time: tiers of tests run side by side, and apt-get fails where another one holds its locks."""

import fcntl
import tempfile
from contextlib import contextmanager
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / "puna-tests-apt.lock"


@contextmanager
def alone():
    """Wait until no other test runs apt-get, and keep the others waiting meanwhile."""
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
