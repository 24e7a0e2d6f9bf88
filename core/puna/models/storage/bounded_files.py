"""Reading the small files of a store, with a bound on their size.

A registry, a client or another user may have written them, so no file is trusted to be small.
"""

from pathlib import Path
from typing import Final

MANIFEST: Final = 4 << 20
"""Bytes of a manifest or a configuration. Typical ones have some hundred."""
LAYER: Final = 64 << 20
"""Bytes of a layer that is not a model file: template, system message, parameters, messages, license."""


def read(path: Path, most: int) -> bytes:
    """Return a file's bytes. Raises OSError, and ValueError if there are more than `most`."""
    with path.open("rb") as file:
        # Reading one byte more than allowed shows an excess without trusting `stat`, which may be outdated.
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path.name} has more than {most} bytes")
    return data
