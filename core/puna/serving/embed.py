"""Embeds texts.

Vectors are rounded to 32 bits at each step of the normalisation, as Ollama does it, so that every digit is the same.
"""

import asyncio
import functools
import importlib
import math
from array import array
from collections.abc import Callable, Sequence

from puna.backend import Embedding, PromptTooLongError
from puna.backend import UnsupportedError as BackendUnsupportedError
from puna.errors import (
    EmbeddingsUnsupportedError,
    InputTooLongError,
    InvalidRequestError,
    ModelNotFoundError,
    PunaError,
)
from puna.go.json import quote
from puna.limits import LARGEST_INT32
from puna.models.stored import StoredModel
from puna.offload import offload_if_heavy
from puna.runtime.requirements import Lease, LeaseKind
from puna.serving.access import Access, OnProgress
from puna.serving.answers import Embeddings, Usage
from puna.serving.clock import Clock
from puna.serving.lengths import Head, head, is_long
from puna.serving.requests import EmbedRequest
from puna.serving.sequence_runner import translating_errors

# Ollama's bound. It keeps the vector of an all-zero embedding at zero instead of dividing by it.
LEAST_NORM = 1e-12
AT_ONCE = 1024
"""Number of texts that are sent to the model in one call; the event loop runs other tasks between the calls."""


async def embed(access: Access, request: EmbedRequest, on_progress: OnProgress) -> Embeddings:
    """Return the vectors of all texts.

    Raises what Access.find and ModelPool.lease raise, OptionTypeError, EmbeddingsUnsupportedError, InputTooLongError
    and InvalidRequestError. Cancelling ends the lease.
    """
    clock = Clock(request.options.start_ns)
    found = await access.find(request.model, missing=lambda: ModelNotFoundError(request.model), unknown=unknown)
    access.refuse_remote(found)
    options = access.options_of(found.model, request.options)
    async with access.lease(found.model, options, request.options, on_progress, LeaseKind.CALL) as lease:
        clock.model_ready()
        if not request.inputs:
            return Embeddings()
        # A context that was raised to a minimum still truncates texts at the length that was asked for. A length that
        # is unknown bounds nothing.
        facts = lease.facts
        lengths = (facts.context_length, options.num_ctx, facts.embedding_tokens)
        longest = min((length for length in lengths if length), default=LARGEST_INT32)
        texts: list[str] = []
        for start in range(0, len(request.inputs), AT_ONCE):
            some = request.inputs[start : start + AT_ONCE]
            texts += [await _fitting(text, lease, found.model, longest, request.truncate) for text in some]
            # Thousands of short texts need no await of their own; other requests must run in between.
            await asyncio.sleep(0)
        # Checked after the lengths of the texts, as in Ollama, so that a text that is too long is reported first.
        if not facts.embedding_length:
            raise EmbeddingsUnsupportedError
        made: list[Embedding] = []
        for start in range(0, len(texts), AT_ONCE):
            made += await _embedded(texts[start : start + AT_ONCE], lease, raw=request.raw)
    # The lease ends before the vectors are shaped, since shaping needs no model.
    values = [each.values for each in made]
    vectors = await offload_if_heavy(
        weight_of_vectors(values), _all_shaped, values, request.dimensions, raw=request.raw
    )
    counts = tuple(each.token_count for each in made)
    return Embeddings(
        vectors=vectors, token_counts=counts, usage=Usage(prompt_tokens=sum(counts)), timings=clock.timings()
    )


def unknown(name: str) -> PunaError:
    """Return the error for an unknown model, whose text differs from that of other methods."""
    return ModelNotFoundError(name, f"model {quote(name)} not found, try pulling it first")


async def _embedded(texts: Sequence[str], lease: Lease, *, raw: bool) -> list[Embedding]:
    try:
        with translating_errors():
            return await lease.model.embed(texts, raw=raw)
    except PunaError as error:
        # `translating_errors` does not know the operation. Ollama has texts of its own for embeddings.
        if isinstance(error.__cause__, BackendUnsupportedError):
            raise EmbeddingsUnsupportedError from error
        if isinstance(error.__cause__, PromptTooLongError):
            raise InvalidRequestError("input exceeds maximum context length and cannot be truncated further") from error
        raise


async def _fitting(text: str, lease: Lease, model: StoredModel, longest: int, truncate: bool) -> str:
    """Return the text, truncated if it does not fit. Raises InputTooLongError, InvalidRequestError."""
    facts = lease.facts
    # Every token but BOS and EOS stands for at least one byte, so a short text need not be counted.
    if len(text.encode()) + 2 <= longest or not facts.tokenizer:
        return text
    if is_long(text, longest):
        found = await head(lease.model, text, longest + 1)
    else:
        tokens = await lease.model.tokenize(text, add_special=False, parse_special=True)
        found = Head(tokens, complete=True, characters=len(text))
    tokens = found.tokens
    adds_bos, adds_eos = (facts.adds_bos, facts.adds_eos) if model.config.is_opaque else _specials(model)
    room = longest
    # The text may begin with BOS or end with EOS in its own words. The tokenizer's extra token then does not count.
    room -= adds_bos and not (tokens and tokens[0] == facts.bos_id)
    room -= adds_eos and not (found.complete and tokens and tokens[-1] == facts.eos_id)
    if found.complete and len(tokens) <= room:
        return text
    if not truncate:
        raise InputTooLongError
    # A context of one or two tokens has no room beside BOS and EOS.
    if room <= 0:
        raise InvalidRequestError("input after truncation exceeds maximum context length")
    # The cut may fall inside a character, whose bytes are then dropped. Text goes back to the model rather than tokens,
    # as in Ollama, so that special tokens are recognised and added anew.
    raw = b"".join(await lease.model.detokenize(tokens[:room], special=True))
    return raw.decode(errors="ignore")


def _specials(model: StoredModel) -> tuple[bool, bool]:
    """Return whether the tokenizer adds BOS and EOS; it does unless the file says no."""
    # As in Ollama, the keys are looked up below the architecture's name; the tokenizer's own keys do not count.
    before, after = (model.gguf.get(f"add_{name}_token") for name in ("bos", "eos"))
    return before is not False, after is not False


def weight_of_vectors(vectors: Sequence[Sequence[float]]) -> int:
    """Return the weight of visiting all numbers of the vectors. See puna.offload."""
    return sum(map(len, vectors)) // 8


def _all_shaped(vectors: Sequence[Sequence[float]], dimensions: int, *, raw: bool) -> tuple[Sequence[float], ...]:
    return tuple(_shaped(each, dimensions, raw=raw) for each in vectors)


def _shaped(values: Sequence[float], dimensions: int, *, raw: bool) -> Sequence[float]:
    """Normalise a vector unless `raw`; with fewer `dimensions`, cut it and normalise it again."""
    if not all(map(math.isfinite, values)):
        raise InvalidRequestError("embedding contains NaN or Inf values")
    normalised = _fast_normalised() or _normalised
    shaped = values if raw else normalised(values)
    # Ollama normalises before the cut and again after it. One normalisation would differ in the last digit.
    return normalised(shaped[:dimensions]) if 0 < dimensions < len(shaped) else shaped


@functools.cache
def _fast_normalised() -> Callable[[Sequence[float]], Sequence[float]] | None:
    """Return a function that does _normalised's work ten times as fast, or None if numpy is not installed."""
    try:
        numpy = importlib.import_module("numpy")
    except ImportError:
        return None

    def normalised(values: Sequence[float]) -> Sequence[float]:
        vector = numpy.asarray(values, "f4")
        with numpy.errstate(over="ignore", under="ignore"):
            # `sum` would add in another order. The accumulation adds one number after the other.
            total = numpy.add.accumulate(vector * vector)[-1] if len(vector) else 0.0
            factor = numpy.float32(1.0 / max(math.sqrt(total), LEAST_NORM))
            return array("f", (vector * factor).tobytes())

    return normalised


def _normalised(values: Sequence[float]) -> Sequence[float]:
    """Scale a vector to length 1, rounding to 32 bits at each step as Ollama does."""
    # Storing a number in an array of floats rounds it to 32 bits, which Python's own numbers cannot do.
    box = array("f", (0.0, 0.0))
    for value in values:
        box[1] = value * value
        box[0] += box[1]
    box[1] = 1.0 / max(math.sqrt(box[0]), LEAST_NORM)
    factor = box[1]
    return array("f", [value * factor for value in values])
