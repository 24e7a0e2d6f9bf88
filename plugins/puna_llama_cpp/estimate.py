"""Estimates the memory that a model would take, without its weights. Blocks; call it in a thread."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from puna.backend import DeviceMemory, MemoryEstimate, ModelSpec
from puna_llama_cpp.binding import memory_breakdown
from puna_llama_cpp.binding.context import Context, ContextOptions
from puna_llama_cpp.binding.heads import wants_head
from puna_llama_cpp.binding.memory_breakdown import DeviceBytes
from puna_llama_cpp.binding.native_log import captured_log
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.draft_loading import open_draft
from puna_llama_cpp.loading import planned_context
from puna_llama_cpp.vision.projector import memory_by_device


@dataclass(frozen=True, slots=True)
class _Opened:
    """A model without the data of its tensors."""

    spec: ModelSpec
    weights: Weights
    projector: Mapping[str, int]
    """Bytes of the projector, by device."""
    adapters: int
    """Bytes of the adapters, which llama.cpp puts next to the tensors that they change."""


class MemoryEstimator:
    """Estimates memory, and keeps the last model open, since the next question is most often about the same one."""

    def __init__(self) -> None:
        self._opened: _Opened | None = None

    def estimate(self, spec: ModelSpec) -> MemoryEstimate:
        """Estimate the memory of a model. Raises what Weights and Context raise, and UnsupportedError."""
        opened = self._open(spec)
        with ExitStack() as stack:
            captured_log().clear()
            options, lazy = stack.enter_context(planned_context(opened.weights, spec))
            context = Context(opened.weights, options)
            stack.callback(context.close)
            found = _memory(context)
            if spec.weights_loaded:
                for sizes in found.values():
                    sizes.weights = 0
            if context.accepts_drafts:
                _add_draft(found, spec, opened.weights, context, options, lazy=lazy)
        main = found[""]
        slots = options.sequences
        # As in the facts of a loaded model: slots that take memory only once they are used count only if asked for.
        deferred = slots - 1 if lazy and not spec.parallel else 0
        main.weights += opened.adapters
        for device, size in opened.projector.items():
            found.setdefault(device, DeviceBytes()).weights += size
        return MemoryEstimate(
            context_length=options.length,
            parallel=slots,
            max_context_length=opened.weights.context_length,
            devices=tuple(
                DeviceMemory(
                    device=device,
                    weights_bytes=sizes.weights,
                    kv_cache_bytes=sizes.cache - sizes.cache * deferred // slots,
                    deferred_kv_cache_bytes=sizes.cache * deferred // slots,
                    compute_bytes=sizes.compute,
                    free_bytes=memory_breakdown.free_bytes(device) if device else 0,
                )
                for device, sizes in sorted(found.items())
            ),
            # The process of a model whose weights are loaded runs already.
            process_bytes=0 if spec.weights_loaded else _own_bytes(),
        )

    def close(self) -> None:
        """Free what is kept."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.weights.close()

    def _open(self, spec: ModelSpec) -> _Opened:
        # None of these matters for the weights, and a search for the longest context changes only these.
        spec = replace(spec, context_length=0, memory_bytes=0, weights_loaded=False)
        if self._opened is None or self._opened.spec != spec:
            self.close()
            weights = Weights(spec, lambda _: None, lambda: False, allocate=False, head=wants_head(spec))
            projector = {}
            if spec.projector_paths and not weights.embeds_only:
                projector = memory_by_device(weights, spec)
            adapters = sum(Path(each).stat().st_size for each in spec.adapter_paths)
            self._opened = _Opened(spec, weights, projector, adapters)
        return self._opened


def _memory(context: Context) -> dict[str, DeviceBytes]:
    """Return the memory of a context that was just created, and of its model, by device."""
    found = memory_breakdown.by_device(context.pointer)
    # The buffer for logits is in none of llama.cpp's own sums.
    found.setdefault("", DeviceBytes()).compute += captured_log().output_bytes()
    return found


def _add_draft(
    found: dict[str, DeviceBytes],
    spec: ModelSpec,
    weights: Weights,
    context: Context,
    options: ContextOptions,
    *,
    lazy: bool,
) -> None:
    """Add the memory of the draft model or the head, if there is one that can be used."""
    draft = open_draft(spec, weights, context, options, lambda: False, lazy=lazy, allocate=False)
    if draft is None:
        return
    try:
        for device, sizes in _memory(draft.context).items():
            main = found.setdefault(device, DeviceBytes())
            # A head of the model's own file is among the model's weights.
            main.weights += sizes.weights if draft.weights is not None else 0
            main.cache += sizes.cache
            main.compute += sizes.compute
    finally:
        draft.close()


def _own_bytes() -> int:
    """Return the memory of this process, which holds all that a loaded model's process does but tensors; 0: unknown."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)
