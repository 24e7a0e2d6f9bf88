"""Checks of what a host answers. A host runs a plugin's code, or is one, so nothing about its answers is trusted.

Each check raises BackendFailedError with a text for the plugin's author, which quotes no text of a prompt or answer. A
token costs a comparison or two.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Final, NoReturn

from puna.backend import (
    ChatDelta,
    DeviceMemory,
    DocumentScores,
    Embedding,
    Finish,
    MemoryEstimate,
    ModelFacts,
    Prefill,
    PromptLogprobs,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
    TokenLogprob,
)
from puna.errors import BackendFailedError

LONGEST_TOKEN_TEXT: Final = 4096
"""Characters of the text of the BOS or EOS token."""
LONGEST_LABEL: Final = 64
"""Characters of the name of a device, and of the type of a KV cache, which metrics and terminals show."""
MOST_BYTES: Final = 1 << 55
"""Bytes of one part of an estimate: sums of parts fit into 64 bits."""
MOST_DEVICES: Final = 128
COUNTS: Final = (
    "prompt_tokens",
    "cached_prompt_tokens",
    "output_tokens",
    "prompt_eval_ns",
    "eval_ns",
    "draft_tokens",
    "accepted_draft_tokens",
    "thinking_tokens",
)


def check_facts(facts: ModelFacts) -> ModelFacts:
    """Return the facts of a loaded model if they are possible."""
    sizes = ("size_bytes", "vram_bytes", "shared_bytes", "shared_vram_bytes")
    for name in ("context_length", *sizes, "kv_cache_tokens", "embedding_tokens"):
        if (value := getattr(facts, name)) < 0:
            _fail(f"the model's {name} is {value}")
    # A model without slots would let its requests wait for ever.
    if facts.parallel < 1:
        _fail(f"the model's parallel is {facts.parallel}")
    # -1 means none, or unknown.
    for name in ("bos_id", "eos_id", "embedding_length"):
        if (value := getattr(facts, name)) < -1:
            _fail(f"the model's {name} is {value}")
    for name in ("bos_text", "eos_text"):
        if (length := len(getattr(facts, name))) > LONGEST_TOKEN_TEXT:
            _fail(f"the model's {name} has {length} characters")
    _check_label("kv_cache_type", facts.kv_cache_type)
    return facts


def check_estimate(estimate: MemoryEstimate) -> MemoryEstimate:
    """Return an estimate if it is possible."""
    if len(estimate.devices) > MOST_DEVICES:
        _fail(f"it estimated the memory of {len(estimate.devices)} devices")
    if estimate.parallel < 1:
        _fail(f"the estimate's parallel is {estimate.parallel}")
    for values in (_fields_of(estimate), *map(_fields_of, estimate.devices)):
        for name, value in values.items():
            if isinstance(value, int) and not 0 <= value <= MOST_BYTES:
                _fail(f"the estimate's {name} is {value}")
    for device in estimate.devices:
        _check_label("device", device.device)
    return estimate


def _fields_of(part: MemoryEstimate | DeviceMemory) -> dict[str, object]:
    return {each.name: getattr(part, each.name) for each in fields(part)}


def _check_label(name: str, text: str) -> None:
    if len(text) > LONGEST_LABEL or not text.isprintable():
        _fail(f"its {name} is no name")


class EventCheck:
    """Checks the events of one sequence: their order and their values."""

    def __init__(self, request: SequenceRequest) -> None:
        self._request = request
        self._delta: type[TextDelta] | type[ChatDelta] = TextDelta if request.chat is None else ChatDelta
        self._has_delta = False
        self._scored = request.score_from or 0
        """Index of the next prompt token whose log-probability is missing, for a request that wants them."""

    def check(self, event: SequenceEvent) -> None:
        """Check the next event."""
        # Almost every event takes this branch.
        if isinstance(event, self._delta):
            self._has_delta = True
            if event.logprobs:
                _check_logprobs(event.logprobs)
        elif isinstance(event, Finish):
            self._check_finish(event)
        elif isinstance(event, PromptLogprobs) and self._scored:
            self._check_scored(event.logprobs)
        elif not isinstance(event, Prefill):
            _fail(f"it sent a {type(event).__name__} where a {self._delta.__name__} belongs")
        elif self._has_delta:
            _fail("it reported the prefill after text")
        elif event.done_tokens < 0 or event.total_tokens < 0:
            _fail("it reported a negative number of tokens")

    def _check_scored(self, logprobs: Sequence[TokenLogprob]) -> None:
        if self._has_delta:
            _fail("it sent log-probabilities of the prompt after text")
        end = self._scored + len(logprobs)
        if tuple(each.token_id for each in logprobs) != tuple(self._request.prompt[self._scored : end]):
            _fail("its log-probabilities of the prompt are those of other tokens")
        _check_logprobs(logprobs)
        self._scored = end

    def _check_finish(self, finish: Finish) -> None:
        if self._scored and self._scored != len(self._request.prompt):
            _fail(f"{len(self._request.prompt) - self._scored} log-probabilities of the prompt are missing")
        for name in COUNTS:
            if (value := getattr(finish, name)) < 0:
                _fail(f"the {name} of the Finish is {value}")
        if finish.stop_sequence and finish.stop_sequence not in self._request.stop:
            _fail("the Finish names a stop string that the request does not have")


def _check_logprobs(logprobs: Iterable[TokenLogprob]) -> None:
    for each in logprobs:
        if not math.isfinite(each.logprob):
            _fail(f"the log-probability of a token is {each.logprob}")
        if each.token_id < -1:
            _fail(f"the id of a token is {each.token_id}")
        if each.top:
            _check_logprobs(each.top)


def check_tokens(tokens: list[int]) -> list[int]:
    """Return token ids if they are possible."""
    if (least := min(tokens, default=0)) < 0:
        _fail(f"the id of a token is {least}")
    return tokens


def check_pieces(pieces: list[bytes], count: int) -> list[bytes]:
    """Return the bytes of tokens if there are as many as tokens."""
    if len(pieces) != count:
        _fail(f"it returned the bytes of {len(pieces)} tokens for {count} tokens")
    return pieces


def check_vectors(vectors: list[Embedding], count: int, length: int) -> list[Embedding]:
    """Return embedding vectors if there are `count` of them, all of one length: `length`, unless it is 0 or -1.

    Whether their numbers are finite is checked when they are shaped, which visits every number anyway.
    """
    if len(vectors) != count:
        _fail(f"it returned {len(vectors)} vectors for {count} texts")
    for each in vectors:
        length = length if length > 0 else len(each.values)
        if len(each.values) != length:
            _fail(f"it returned a vector of {len(each.values)} numbers instead of {length}")
        if each.token_count < 0:
            _fail(f"it counted {each.token_count} tokens")
    return vectors


def check_scores(found: DocumentScores, count: int) -> DocumentScores:
    """Return relevance scores if there are `count` of them and all are finite."""
    if len(found.scores) != count:
        _fail(f"it returned {len(found.scores)} scores for {count} documents")
    if not all(map(math.isfinite, found.scores)):
        _fail("a score is not a finite number")
    if found.token_count < 0:
        _fail(f"it counted {found.token_count} tokens")
    return found


def _fail(what: str) -> NoReturn:
    raise BackendFailedError(f"the backend breaks its contract: {what}")
