"""Translates a request's options for a backend: how the model must be loaded, and how a sequence is sampled.

Every number is clamped to 32 bits on the way, since backends and their wire take no larger ones.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from puna.backend import Constraint, ConstraintLimits, ModelSpec, Sampling
from puna.errors import InvalidFormatError, InvalidRequestError, OptionRangeError, UnsupportedConstraintError
from puna.go.json import quote
from puna.go.json_text import repaired
from puna.limits import LARGEST_INT32, clamp_int32
from puna.messages import Tool
from puna.models.storage.integrity import never
from puna.models.stored import StoredModel
from puna.options import Options, merge
from puna.runtime.requirements import ModelRequirements
from puna.serving.requests import OutputConstraint, RequestOptions
from puna.settings import Settings

DEFAULT_CONTEXT: Final = 4096
# Ollama raises smaller contexts to the same lengths.
LEAST_CONTEXT: Final = 4
LEAST_VISION_CONTEXT: Final = 2048
DRAFT_TOKENS: Final = 4
SAMPLED: Final = {
    name: name
    for name in (
        *("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "repeat_penalty"),
        *("presence_penalty", "frequency_penalty", "seed"),
    )
} | {"num_predict": "max_tokens"}
"""The options that a sequence has, with their names in the backend contract."""
NO_SHIFT_FAMILIES: Final = ("deepseek2",)
"""Families whose cache cannot be shifted."""


def model_requirements(
    model: StoredModel, options: Options, request: RequestOptions, settings: Settings
) -> ModelRequirements:
    """Return what the pool must load.

    Raises InvalidRequestError if the model has no file and is no opaque one, and DamagedModelError if a file is gone.
    """
    path = model.model_path
    if path is None and not model.config.is_opaque:
        raise InvalidRequestError(f"{model.name.shortest} has no model file")
    config = model.config
    own = settings.model_settings.of(model.name.shortest)
    files = model.files if config.is_opaque else {}
    # The pool may load such a model with another value, and a later request without one needs no reload.
    automatic = {
        name
        for name, value in (("context_length", options.num_ctx), ("batch_size", options.num_batch))
        if value is None
    }
    spec = ModelSpec(
        path=str(path or ""),
        name=model.name.shortest,
        format=config.format,
        files={name: str(blob) for name, blob in files.items()},
        upstream=config.upstream,
        backend_options=config.backend_options,
        adapter_paths=tuple(map(str, model.adapter_paths)),
        projector_paths=tuple(map(str, model.projector_paths)),
        draft_path=str(model.draft_path) if model.draft_path else None,
        context_length=context_length(model, options, settings),
        parallel=own.num_parallel or settings.num_parallel,
        batch_size=_bounded("num_batch", clamp_int32(options.num_batch or 0), "max_batch_tokens", settings),
        gpu_layers=clamp_int32(options.num_gpu),
        main_gpu=None if options.main_gpu is None else clamp_int32(options.main_gpu),
        use_mmap=options.use_mmap,
        threads=_bounded("num_thread", clamp_int32(options.num_thread), "max_threads", settings),
        draft_tokens=_draft_tokens(model, options),
        flash_attention=settings.flash_attention,
        kv_cache_type=settings.kv_cache_type,
        constraint_limits=ConstraintLimits(
            seconds=settings.limits.max_constraint_seconds,
            mask_seconds=settings.limits.max_mask_seconds,
            memory_bytes=settings.limits.max_constraint_memory_bytes,
        ),
    )
    return ModelRequirements(
        key=model.load_key,
        name=model.name.shortest,
        spec=spec,
        digest=model.digest,
        details=model,
        format=config.format,
        backend=model.wanted_backend,
        backend_options=request.backend_options,
        automatic=frozenset(automatic),
        file_bytes=sum(_size(model, each) for each in (files.values() if path is None else (path,))),
        adapter_bytes=sum(_size(model, each) for each in model.adapter_paths),
        verify=model.verify,
    )


def _size(model: StoredModel, path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # Raises DamagedModelError, whose text names the file and the remedy.
        model.verify(thorough=False, stopped=never)
        raise


def context_length(model: StoredModel, options: Options, settings: Settings) -> int:
    """Return the context length to load with, in tokens; the backend clamps it to the length of the training."""
    asked = options.num_ctx
    if asked is None:
        asked = settings.context_length or DEFAULT_CONTEXT
    own = settings.model_settings.of(model.name.shortest).max_context_tokens
    most = settings.limits.max_context_tokens if own is None else min(own, settings.limits.max_context_tokens)
    # An image alone would fill a smaller context.
    least = LEAST_VISION_CONTEXT if "vision" in model.capabilities else LEAST_CONTEXT
    return max(clamp_int32(min(asked, most)), least)


def merged_options(model: StoredModel, request: RequestOptions, settings: Settings) -> Options:
    """Return the options of a request: its own over those of the configuration over those of the model.

    Raises OptionTypeError and OptionRangeError.
    """
    own = settings.model_settings.of(model.name.shortest)
    options = merge(model.parameters, own.options, request.values)
    most = own.max_output_tokens
    if most is None or 0 <= options.num_predict <= most:
        return options
    # A backend that knows this option must hear of it, whoever set it.
    return replace(options, num_predict=most, unset=options.unset - {"num_predict"})


def token_limit(options: Options, context: int) -> int:
    """Return the maximum number of tokens to generate: `num_predict`, but no more than ten contexts.

    A context of 0 tokens is unknown and bounds nothing.
    """
    # A context shift lets a model write for ever. Ollama has the same bound.
    longest = 10 * context or LARGEST_INT32
    return longest if options.num_predict < 0 else min(options.num_predict, longest)


def sampling(options: Options, request: RequestOptions, choice: int = 0) -> Sampling:
    """Return the sampling parameters of the answer with this index. With a seed, each answer has a seed of its own."""
    return Sampling(
        temperature=options.temperature,
        top_k=clamp_int32(options.top_k),
        top_p=options.top_p,
        min_p=options.min_p,
        typical_p=options.typical_p or 1.0,  # Ollama does not send a zero to its engine
        repeat_last_n=clamp_int32(options.repeat_last_n),
        repeat_penalty=options.repeat_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        # Any negative seed asks for a random one. The mask keeps larger seeds usable and equal to their low 32 bits.
        seed=None if options.seed < 0 else (options.seed + choice) & 0xFFFFFFFF,
        logit_bias=request.logit_bias,
        unset=tuple(theirs for ours, theirs in SAMPLED.items() if ours in options.unset),
    )


def output_constraint(output: OutputConstraint | None) -> Constraint | None:
    """Return the backend's constraint. Raises InvalidFormatError if `format` is neither "json" nor a JSON object."""
    if output is None:
        return None
    if output.kind == "json_object":
        # As a schema, "json" means any object; a bare number or text is not accepted.
        return Constraint("json_schema", '{"type":"object"}')
    if output.kind == "json_schema":
        return _schema(output.text)
    return Constraint(output.kind, output.text)


def check_size(request: RequestOptions, tools: Sequence[Tool], most: int) -> None:
    """Raise UnsupportedConstraintError for a constraint of more than `most` bytes, before anything parses it.

    `tools` are the tools of which one must be called.
    """
    sizes = {"format": len(request.constraint.text) if request.constraint else 0}
    sizes |= {f"tool {quote(tool.name)}": len(tool.parameters or "") for tool in tools}
    # The schemas of all tools become one grammar, so only the sum matters. The text names the largest.
    if sum(sizes.values()) > most:
        name = max(sizes, key=sizes.__getitem__)
        raise UnsupportedConstraintError(
            f"{name} is too large: it has {sizes[name]} bytes, and PUNA_MAX_CONSTRAINT_BYTES allows {most}"
        )


def shifts(model: StoredModel, request: RequestOptions) -> bool:
    """Return whether a full context is shifted."""
    return request.shift if request.shift is not None else model.config.model_family not in NO_SHIFT_FAMILIES


def _schema(text: str) -> Constraint:
    stripped = text.strip(" \t\r\n")
    if stripped == '"json"':
        return Constraint("json_schema", '{"type":"object"}')
    # The text is only checked here. The backend gets it unchanged, since writing it anew would change numbers and the
    # order of keys.
    try:
        # RecursionError: json reads nested arrays recursively, and a client decides how deep they are.
        fits = isinstance(json.loads(stripped), dict)
    except (ValueError, RecursionError):
        fits = False
    if not fits:
        raise InvalidFormatError(f'invalid format: {quote(text)}; expected "json" or a valid JSON Schema object')
    return Constraint("json_schema", repaired(stripped))


def _draft_tokens(model: StoredModel, options: Options) -> int:
    if options.draft_num_predict is not None:
        return max(clamp_int32(options.draft_num_predict), 0)
    return DRAFT_TOKENS if model.draft_path else 0


def _bounded(name: str, value: int, limit: str, settings: Settings) -> int:
    """Return an option's value, or 0 for a negative one. Raises OptionRangeError if it exceeds the named limit."""
    most = getattr(settings.limits, limit)
    if value > most:
        raise OptionRangeError(name, f"at most {most} (PUNA_{limit.upper()})")
    return max(value, 0)
