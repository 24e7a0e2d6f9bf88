"""Relative names of opaque files, which clients and registries choose and a load makes anew on this machine's disk.

A name that is safe here must be safe on every machine that pulls the model, so the rules do not depend on the file
system: two names that only some file systems tell apart are refused everywhere.
"""

import unicodedata
from collections.abc import Iterable
from typing import Final

LONGEST_NAME: Final = 1024
LONGEST_PART: Final = 255
"""Bytes of a name, and of each part between slashes. Common file systems allow no longer ones."""
LONGEST_TOGETHER: Final = 512 << 10
"""Bytes of all names of a model. With more, its manifest could be pushed and never be pulled."""
_SHOWN: Final = 100
"""Characters of a refused name that an error shows."""


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError, which names the first offender, unless the names can be files of one folder."""
    spellings: dict[str, str] = {}
    """The spelling of each file and each folder, by its folded form."""
    files: set[str] = set()
    total = 0
    for name in names:
        shown = repr(name[:_SHOWN])
        _check_name(name, shown)
        total += len(name.encode())
        if total > LONGEST_TOGETHER:
            raise ValueError(f"the file names together have more than {LONGEST_TOGETHER} bytes")
        parts = name.split("/")
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            folded = _folded(path)
            is_file = count == len(parts)
            # A file may stand only once, and never where another name has a folder.
            if folded in files or (is_file and folded in spellings) or spellings.setdefault(folded, path) != path:
                raise ValueError(f"the file name {shown} clashes with another one, perhaps but for case")
            if is_file:
                files.add(folded)


def _check_name(name: str, shown: str) -> None:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"the file name {shown} is not relative, or has an empty part or a dot for one")
    # A backslash separates folders on some systems. Control characters and lone surrogates belong to no honest name.
    if "\\" in name or any(unicodedata.category(each) in ("Cc", "Cs") for each in name):
        raise ValueError(f"the file name {shown} has a character that names must not have")
    raw = name.encode()
    # File systems count bytes and not characters.
    if len(raw) > LONGEST_NAME or max(map(len, raw.split(b"/"))) > LONGEST_PART:
        raise ValueError(f"the file name {shown}... is too long")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
