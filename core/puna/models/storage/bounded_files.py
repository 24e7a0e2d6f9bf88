"""Reading the small files of a store, which a registry, a client or another user may have written."""

from pathlib import Path
from typing import Final

MANIFEST: Final = 4 << 20
"""Bytes of a manifest, and of a configuration. Those of honest models have some hundred."""
LAYER: Final = 64 << 20
"""Bytes of a layer that is not a model file: template, system message, parameters, messages, license."""


def read(path: Path, most: int) -> bytes:
    """Return a file's bytes. Raises ValueError when there are more than `most`, and OSError."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path.name} has more than {most} bytes")
    return data
