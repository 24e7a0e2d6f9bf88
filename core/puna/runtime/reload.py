"""Whether a loaded model meets a request's requirements, or must be loaded anew."""

from puna.backend import ModelFacts
from puna.runtime.requirements import ModelRequirements

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
"""Fields of the spec that must be equal. The other fields have rules of their own in `difference`. The option `shift`
is not among them: in Puna it belongs to each sequence and reloads nothing."""


def difference(loaded: ModelRequirements, backend: str, facts: ModelFacts, required: ModelRequirements) -> str:
    """Return the name of the first field in which a loaded model does not meet the requirements; empty if it does.

    The model was loaded with the requirements `loaded`, on the backend `backend`, and reported `facts`. Two values that
    no one set are equal.
    """
    have, want = loaded.spec, required.spec
    if required.backend not in (loaded.backend, backend):
        return "backend"
    # A model without files is loaded elsewhere, so threads, GPUs and the context of a request mean nothing to it.
    if not (want.path or want.files):
        return "backend_options" if want.backend_options != have.backend_options else ""
    # Two requests that both leave the context length open must not reload each other's model, whatever the default was.
    if not _automatic("context_length", loaded, required):
        # A context that was clamped is the longest that the model has: any longer request gets the same one.
        clamped = facts.context_length < have.context_length
        if want.context_length != have.context_length and not (clamped and want.context_length >= facts.context_length):
            return "context_length"
    if not _automatic("batch_size", loaded, required) and want.batch_size != have.batch_size:
        return "batch_size"
    # -1 lets the backend decide, and any number of layers meets that.
    if want.gpu_layers >= 0 and want.gpu_layers != have.gpu_layers:
        return "gpu_layers"
    return next((name for name in COMPARED if getattr(want, name) != getattr(have, name)), "")


def _automatic(field: str, loaded: ModelRequirements, required: ModelRequirements) -> bool:
    return field in loaded.automatic and field in required.automatic
