"""How large, how many, how long: the numbers of a transfer. Tests use smaller ones."""

from dataclasses import dataclass

from puna.limits import DEFAULT_LIMITS
from puna.limits import Limits as Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds. The defaults are Ollama's, where Ollama has such a number."""

    parts: int = 16
    """Parts of a blob, and how many of them travel at once."""
    smallest_part: int = 100_000_000
    largest_part: int = 1_000_000_000
    tick: float = 0.06
    """Between two reports of progress."""
    stall: float = 30.0
    """Without a byte until the request is made anew."""
    connect: float = 30.0
    answer: float = 300.0
    """Until the headers of an answer without a large body."""
    commit: float = 3600.0
    """Until the answer to the end of an upload: some registries read all of it again."""
    tries: int = 6
    """Failures in a row until a part, or a blob that is sent, is given up."""
    backoff: float = 1.0
    """Before the second try; doubled with each further one."""
    longest_wait: float = 60.0
    """What a registry may ask for at most before the next try."""
    progress: int = 1 << 20
    """A try that brought this much counts as the first again: slow lines that are cut often still get there."""
    direct: float = 30.0
    """For finding out where a blob lies."""
    save: float = 2.0
    """Between two notes of how far the parts are; a killed server loses this much."""
    keep: float = 300.0
    """Between two touches of what a long transfer has brought, so that no server prunes it."""
    trickle: int = 1 << 10
    """Bytes that must come within `stall`, and a try that stalls must bring for it not to count."""
    manifest: int = DEFAULT_LIMITS.max_manifest_bytes
    """Bytes of a manifest."""
    layers: int = DEFAULT_LIMITS.max_manifest_layers
    """Layers that a manifest may name."""
    model: int = DEFAULT_LIMITS.max_model_bytes
    """Bytes of all blobs of a model."""
    poll: float = 0.25
    """Between two looks at a download that another process is busy with."""


def limits_of(bounds: Bounds) -> Limits:
    """Return the limits with the bounds that are settings."""
    return Limits(manifest=bounds.max_manifest_bytes, layers=bounds.max_manifest_layers, model=bounds.max_model_bytes)
