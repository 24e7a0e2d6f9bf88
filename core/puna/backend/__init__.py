"""The backend contract: what a plugin implements, and all that it needs to import.

A plugin is a Backend subclass and a manifest, the file `backend.toml`. The manifest says what the backend serves, what
it can do, which options it takes, and how its host process is started. plugins/README.md describes the file and where
it lies. The core reads it and imports no plugin.

The core does everything that is the same for every backend: model names, the store, templates, truncation, tool calls,
thinking, keep-alive and the queue. A backend takes a prompt, as text or tokens, and yields text deltas. A backend at
chat level takes the conversation instead, and yields chat deltas.

Lifetimes. A Backend lives as long as the process that runs it. A LoadedModel lives from `load` to `aclose`; the core
closes every generator of the model before it calls `aclose`.

What is unknown. A context length of 0 is unknown, and so is a token id of -1. A model without a tokenizer says so in
its facts; the core then counts tokens by each Finish alone.

What an engine cannot do. The core refuses a demand on the form of an answer that the manifest does not declare, such as
a constraint or log-probabilities. A parameter that only tunes sampling is passed on, and a backend ignores what its
engine lacks. A model that can do less than its manifest declares raises UnsupportedError before its first delta.

Logs. What a host prints or writes to standard error belongs to the server's log, under the model's name. The core shows
the last lines if the host dies, and the others with OLLAMA_DEBUG=1. Exceptions are logged with their tracebacks.

Cancellation. The core stops a sequence by closing its generator, which raises GeneratorExit at the current `yield`, or
CancelledError at the current `await`. Clean up in `finally`. Decoding and prefill must end soon, since others wait.

Processes. A backend runs in a host process, so that a crash of native code fails the requests of one model only. Each
loaded model has a host of its own. All models of a backend share one if its manifest says `shared`, and those of the
same weights if it says `shares_weights`. The module is imported at the first load. The core ends a host whose event
loop does not answer for PUNA_MAX_HOST_SILENCE_SECONDS, so compute in threads (`puna.blocking`). Only `load` may block.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from puna.backend.chat import ChatInput, ChatMessage, ChatTool, ChatToolCall
from puna.backend.errors import (
    BackendError,
    InvalidRequestError,
    PromptTooLongError,
    UnavailableError,
    UnsupportedError,
)
from puna.backend.metadata import request_metadata
from puna.backend.model import (
    ConstraintLimits,
    DeviceMemory,
    KvCacheUsage,
    MemoryEstimate,
    ModelFacts,
    ModelSpec,
)
from puna.backend.thinking import ThinkingBudget, ThinkingMarkers

__all__ = [
    "CONTRACT_VERSION",
    "ENTRY_POINT_GROUP",
    "NO_TOKENIZER",
    "Backend",
    "BackendError",
    "ChatDelta",
    "ChatInput",
    "ChatMessage",
    "ChatTool",
    "ChatToolCall",
    "Constraint",
    "ConstraintLimits",
    "DeviceMemory",
    "DocumentScores",
    "Embedding",
    "Finish",
    "InvalidRequestError",
    "KvCacheUsage",
    "LoadedModel",
    "MemoryEstimate",
    "ModelFacts",
    "ModelSpec",
    "Prefill",
    "PromptLogprobs",
    "PromptTooLongError",
    "Sampling",
    "SequenceEvent",
    "SequenceRequest",
    "TextDelta",
    "ThinkingBudget",
    "ThinkingMarkers",
    "TokenLogprob",
    "UnavailableError",
    "UnsupportedError",
    "UpstreamModel",
    "request_metadata",
]

ENTRY_POINT_GROUP = "puna.backends"

CONTRACT_VERSION = 1
"""The version of this contract. A manifest names the version for which its backend was written."""

NO_TOKENIZER = "this model's backend has no tokenizer"
"""The text of the error where a request needs one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling parameters. They apply in this order: penalties, top-k, typical-p, top-p, min-p, temperature."""

    temperature: float = 0.8
    """0: always take the most probable token."""
    top_k: int = 40
    """0: keep all tokens."""
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    """Number of recent tokens that the penalties consider; -1: the whole context; 0: none."""
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    """32 bits; None: a random seed."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    """Names of the parameters that neither the request nor the model sets; "max_tokens" may be among them.

    They hold Ollama's defaults. An engine with defaults of its own, such as an upstream server, may use its own.
    """


@dataclass(frozen=True, slots=True)
class Constraint:
    """Structured output: a constraint on the text.

    A backend enforces it token by token or refuses the request; it never ignores it.
    """

    kind: str
    """"json_schema", "gbnf", "lark" or "regex"."""
    text: str
    """The schema (raw JSON text), grammar or expression.

    In a Lark grammar `%json SCHEMA` stands for JSON that fits the schema, and `%mark "TEXT"` for the special token of
    that spelling, or for the text itself if the vocabulary has no such token.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRequest:
    """A prompt, and how to generate from it."""

    prompt: str | tuple[int, ...]
    """Text or token ids. In text, special tokens are recognised, and BOS is added if the model wants it. Token ids are
    used as they are."""
    media: tuple[bytes, ...] = ()
    """Images and sounds. The text has a marker "[img-N]" for the N-th, counted from 0."""
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 128
    """Maximum number of tokens to generate; 0: evaluate the prompt and end with reason "length"."""
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None
    top_logprobs: int | None = None
    """Number of alternatives that come with each token's log-probability; None: no log-probabilities."""
    keep_tokens: int = 0
    """Tokens at the start that a context shift keeps, not counting BOS; -1: the whole prompt."""
    shift: bool = True
    """Whether a full context is shifted: the older half of what follows the kept tokens is dropped. Otherwise a full
    context ends the sequence."""
    preserved_tokens: tuple[str, ...] = ()
    """Special tokens that appear in the text; all others are left out of it."""
    cache_salt: str = ""
    """Sequences share cached prefixes only if they have the same salt."""
    priority: int = 0
    """Sequences of larger priority start first."""
    score_from: int | None = None
    """Index of the first prompt token whose log-probability is wanted, from 1 to the last index; None: of none.

    Comes with token ids and without media, and only to a backend whose manifest declares `prompt_logprobs`. The
    generator yields the log-probabilities of this token and of all later ones of the prompt as PromptLogprobs, also of
    tokens that are cached, each with `top_logprobs` alternatives. With `max_tokens` of 0 nothing follows the last
    token, so it need not be evaluated, and the prompt may be as long as the context."""
    chat: ChatInput | None = None
    """The conversation, for a backend whose manifest declares the capability `chat`. The prompt is then empty, the
    media are in the messages, and the generator yields ChatDelta instead of TextDelta."""
    thinking_budget: ThinkingBudget | None = None
    """The limit on the model's thinking, for a backend whose manifest declares the capability `thinking_budget`. See
    `puna.backend.thinking`, whose ThinkingTracker counts. Never together with a constraint, which allows no thinking.
    """


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability, before temperature and filters."""

    raw: bytes
    """The token's bytes, which need not be complete UTF-8."""
    token_id: int
    """The token's id; -1: unknown."""
    logprob: float
    top: tuple["TokenLogprob", ...] = ()
    """The most probable tokens at its position, best first."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """Progress of the prefill, in tokens. Optional, and only before the first TextDelta."""

    done_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """The log-probabilities of the next scored tokens of the prompt, in order. Only before the first TextDelta."""

    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The text that one decoding step added.

    It is complete UTF-8 and never contains a part of a stop string. It is empty only if it carries log-probabilities.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    cached_prompt_tokens: int = 0
    """In the first delta, the count of the Finish, which never comes if the core ends the sequence; otherwise 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDelta:
    """What one step adds to the answer of a chat-level backend. At least one field is not empty."""

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ChatToolCall, ...] = ()
    """Complete calls."""
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The end of a sequence: the last event that its generator yields."""

    reason: str
    """"stop": an end token or a stop string; "length": `max_tokens`, or the context's end without shift."""
    stop_sequence: str = ""
    prompt_tokens: int = 0
    """Tokens of the whole prompt, including cached ones."""
    cached_prompt_tokens: int = 0
    output_tokens: int = 0
    """Sampled tokens, including those of stop strings and the end token."""
    prompt_eval_ns: int = 0
    """Nanoseconds of prefill, that is, for the prompt tokens that were not cached."""
    eval_ns: int = 0
    """Nanoseconds of decoding."""
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    thinking_tokens: int = 0
    """Output tokens of the thinking, without its markers, if the sequence has a thinking budget."""


SequenceEvent: TypeAlias = Prefill | PromptLogprobs | TextDelta | ChatDelta | Finish


@dataclass(frozen=True, slots=True)
class Embedding:
    """The embedding vector of one text."""

    values: Sequence[float]
    token_count: int


@dataclass(frozen=True, slots=True)
class DocumentScores:
    """The relevance of documents to a query, in order; a larger score is better."""

    scores: Sequence[float]
    token_count: int = 0
    """Tokens that were evaluated: of each document together with the query. 0: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamModel:
    """A model that a backend offers without a creation."""

    name: str
    """Its name at the upstream, as `ModelSpec.upstream` gives it back."""
    capabilities: tuple[str, ...] = ("completion",)
    """Names of Ollama's: "completion", "tools", "vision", "thinking", "embedding"."""
    context_length: int = 0
    """In tokens; 0: unknown."""


class LoadedModel(ABC):
    """A loaded model. Any number of its methods may run at once; it queues those that it cannot run together."""

    @property
    @abstractmethod
    def facts(self) -> ModelFacts:
        """The facts of the model."""

    # Parameters before the slash are positional only, so a plugin may choose its own names for them.
    @abstractmethod
    def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Run a sequence: yield any number of Prefill and PromptLogprobs, then TextDelta, then one Finish.

        Raises PromptTooLongError if the prompt does not fit the context, InvalidRequestError for a constraint that
        cannot be enforced or an invalid token id or value, and UnsupportedError if the model does not generate, or not
        from this input (images, say). All are raised before the first TextDelta.
        """

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text. Needs no slot.

        Raises UnsupportedError if the model's facts say that there is no tokenizer.
        """
        # Not abstract, so that a backend without a tokenizer need not define it.
        raise UnsupportedError(NO_TOKENIZER)

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return the bytes of each token; those of special tokens are empty unless `special`. Needs no slot.

        Raises InvalidRequestError for an id that the vocabulary does not have, and UnsupportedError likewise.
        """
        raise UnsupportedError(NO_TOKENIZER)

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the embedding vectors of texts or token ids, in order, normalised to length 1 unless `raw`.

        Raises PromptTooLongError if a text does not fit, UnsupportedError if the model does not embed.
        """
        # Not abstract, so that a backend which only generates need not define it.
        raise UnsupportedError("this model does not support embeddings")

    async def rerank(self, query: str, documents: Sequence[str], /) -> DocumentScores:
        """Return the relevance of each document to the query.

        Raises PromptTooLongError if a document does not fit beside the query, UnsupportedError if the model does not
        rank.
        """
        raise UnsupportedError("this model does not support reranking")

    def step(self) -> int | None:
        """Return a number that changes with each step of the current work; None: the model has no work.

        The heartbeat asks for it every few seconds. The core kills the host of a model whose number stays the same for
        longer than PUNA_MAX_STEP_SECONDS. For a model without this method each event of a sequence counts as a step.
        """
        return None

    def kv_cache_usage(self) -> KvCacheUsage | None:
        """Return how much of the KV cache is in use; None: the backend does not count.

        The heartbeat asks for it every few seconds, on the event loop.
        """
        return None

    async def aclose(self) -> None:  # noqa: B027 (a model with nothing to free need not say so)
        """Free the model, when no generator is open. A second call does nothing.

        Any other method then raises BackendError if it needs what was freed.
        """


class Backend(ABC):
    """Loads models of one kind. The constructor takes no arguments."""

    @abstractmethod
    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Load a model, calling `report` with the progress from 0 to 1, from any thread.

        A load that neither reports nor ends for OLLAMA_LOAD_TIMEOUT is ended. It may block the event loop, but then it
        cannot be cancelled. Cancelling the call frees what was loaded so far.

        Raises InvalidRequestError if the file is not a model that the backend can run, and MemoryError if there is no
        room; the core then tries once more, with a smaller context and without the other models.
        """

    async def models(self, options: Mapping[str, object], /) -> list[UpstreamModel]:
        """Return the models that the backend offers without a creation.

        The core calls it for a backend whose manifest declares `lists_models`, with the operator's options. Raises
        BackendError, or any other exception, if the upstream cannot be asked; the core then lists none of its models.
        """
        return []

    async def estimate_memory(self, spec: ModelSpec, /) -> MemoryEstimate:
        """Estimate the memory that `load` would take with the same spec, without loading weights.

        The core calls it for a backend whose manifest declares `memory_estimate`, often several times in a row with
        other context lengths. Raises UnsupportedError for a model of which the backend cannot tell, and what `load`
        raises for one that it cannot run.
        """
        raise UnsupportedError("this backend gives no estimates of memory")

    async def aclose(self) -> None:  # noqa: B027 (a backend with nothing to free need not say so)
        """Free what the backend holds beside its models. Called once, when the host ends."""
