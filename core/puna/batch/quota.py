"""The bounds on what clients may keep on the disk: bytes in all and per key."""

import threading
from collections import Counter

from puna.errors import TooLargeError
from puna.limits import Limits


class Quota:
    """Counts the bytes of all batches and files. Safe between threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._used: Counter[str] = Counter()
        self._total = 0

    def add(self, owner: str, size: int) -> None:
        """Count bytes that are about to be stored. TooLargeError: they exceed a limit, and are not counted."""
        with self._lock:
            if self._total + size > (most := self._limits.max_stored_bytes):
                raise TooLargeError(
                    f"all files and batches together would have more than {most} bytes; "
                    "PUNA_MAX_STORED_BYTES changes the limit",
                    limit=most,
                    setting="PUNA_MAX_STORED_BYTES",
                )
            if owner and self._used[owner] + size > (most := self._limits.max_stored_bytes_per_key):
                raise TooLargeError(
                    f"the files and batches of this API key would have more than {most} bytes; "
                    "PUNA_MAX_STORED_BYTES_PER_KEY changes the limit",
                    limit=most,
                    setting="PUNA_MAX_STORED_BYTES_PER_KEY",
                )
            self._count(owner, size)

    def force(self, owner: str, size: int) -> None:
        """Count bytes that are stored whatever the limits say: those found on the disk, and small errors."""
        with self._lock:
            self._count(owner, size)

    def remove(self, owner: str, size: int) -> None:
        """Count bytes that are no longer stored."""
        with self._lock:
            self._count(owner, -size)

    def _count(self, owner: str, size: int) -> None:
        self._total += size
        self._used[owner] += size


def check_number(what: str, present: int, most: int, setting: str, whose: str = "") -> None:
    """Raise TooLargeError if one more batch or file would exceed a limit."""
    if present >= most:
        raise TooLargeError(
            f"there are {present} {what}{whose}, which is the limit; {setting} changes it", limit=most, setting=setting
        )
