"""Sizes, counts and times of transfers. Tests use smaller ones."""

from dataclasses import dataclass

from puna.limits import DEFAULT_LIMITS
from puna.limits import Limits as Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes are bytes, times are seconds. Where Ollama has such a limit, the default is Ollama's."""

    parts: int = 16
    """Parts of a blob, and how many are transferred at once."""
    smallest_part: int = 100_000_000
    largest_part: int = 1_000_000_000
    tick: float = 0.06
    """Time between two reports of progress."""
    stall: float = 30.0
    """Time without a byte after which the request is repeated."""
    connect: float = 30.0
    answer: float = 300.0
    """Time until the headers of an answer without a large body."""
    commit: float = 3600.0
    """Time until the answer to the end of an upload, since some registries read the whole blob again."""
    tries: int = 6
    """Consecutive failures after which a part, or an upload, is given up."""
    backoff: float = 1.0
    """Delay before the second attempt. It doubles with each further one."""
    longest_wait: float = 60.0
    """Longest delay before the next attempt that a registry may ask for."""
    progress: int = 1 << 20
    """Bytes of an attempt that reset the count of failures, so that connections that break often still make
    progress."""
    direct: float = 30.0
    """Time to ask for the address of a blob."""
    save: float = 2.0
    """Time between two writes of the notes. A killed server loses this much work."""
    keep: float = 300.0
    """Time between two touches of the files of a long transfer, so that no server prunes them."""
    trickle: int = 1 << 10
    """Bytes that must arrive within `stall`. A stalled attempt that brought as many does not count as a failure."""
    manifest: int = DEFAULT_LIMITS.max_manifest_bytes
    """Bytes of a manifest."""
    layers: int = DEFAULT_LIMITS.max_manifest_layers
    """Layers that a manifest may name."""
    model: int = DEFAULT_LIMITS.max_model_bytes
    """Bytes of all blobs of a model."""
    poll: float = 0.25
    """Time between two looks at a download of another process."""


def limits_of(bounds: Bounds) -> Limits:
    """Return the limits with the bounds from the settings."""
    return Limits(manifest=bounds.max_manifest_bytes, layers=bounds.max_manifest_layers, model=bounds.max_model_bytes)
