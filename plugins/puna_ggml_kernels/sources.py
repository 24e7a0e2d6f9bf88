"""The digest of the kernels' sources, which the build gives to the library and the loader compares."""

import hashlib
from pathlib import Path


def digest(folder: Path) -> str:
    """Return the SHA-256 of the C files of a folder, in hexadecimal."""
    found = hashlib.sha256()
    for each in sorted(folder.glob("*.[ch]")):
        found.update(each.read_bytes())
    return found.hexdigest()
