"""Whether a loaded model does for a request, or must be loaded anew."""

from puna.backend import ModelFacts
from puna.runtime.requirements import Wanted

COMPARED = (
    "adapter_paths",
    "projector_paths",
    "draft_path",
    "main_gpu",
    "use_mmap",
    "threads",
    "draft_tokens",
    "backend_options",
)
"""Fields of the spec that must be equal; the others have rules of their own. How a full context is treated, by `shift`,
is a matter of each sequence in Puna, and reloads nothing."""


def difference(loaded: Wanted, backend: str, facts: ModelFacts, wanted: Wanted) -> str:
    """Return what makes a loaded model unfit for a request, as the name of a field; empty if it fits.

    Values that nobody asked for equal each other.
    """
    have, want = loaded.spec, wanted.spec
    if wanted.backend not in (loaded.backend, backend):
        return "backend"
    if not _automatic("context_length", loaded, wanted):
        clamped = facts.context_length < have.context_length  # then all longer ones give the same
        if want.context_length != have.context_length and not (clamped and want.context_length >= facts.context_length):
            return "context_length"
    if not _automatic("batch_size", loaded, wanted) and want.batch_size != have.batch_size:
        return "batch_size"
    if want.gpu_layers >= 0 and want.gpu_layers != have.gpu_layers:
        return "gpu_layers"
    return next((name for name in COMPARED if getattr(want, name) != getattr(have, name)), "")


def _automatic(field: str, loaded: Wanted, wanted: Wanted) -> bool:
    return field in loaded.automatic and field in wanted.automatic
