"""The backend contract: what a plugin implements, and all that it needs to import.

A plugin is a distribution with an entry point in the group `puna.backends` that names a Backend subclass:

    [project.entry-points."puna.backends"]
    parrot = "puna_parrot:ParrotBackend"

The core does everything that is the same for every backend: model names, the store, templates, truncation, tool calls,
thinking, keep-alive and the queue. A backend takes a prompt, as text or tokens, and yields text deltas.

Lifetimes. A Backend lives as long as the process that runs it. A LoadedModel lives from `load` to `aclose`; the core
closes every generator of the model before it calls `aclose`.

Cancellation. The core stops a sequence by closing its generator, which raises GeneratorExit at the current `yield`, or
CancelledError at the current `await`. Clean up in `finally`. Decoding must end soon after that, also in the middle of a
prefill, since another sequence waits for the slot.

Processes. Unless `needs_host` is False, each loaded model runs in a host process of its own, so that a crash of native
code fails the requests of one model only. Import heavy libraries in `load` and not with the module: the core imports
the module in its own process to read the class's attributes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

ENTRY_POINT_GROUP = "puna.backends"


# These errors cross the socket between host and core by their kind and text. Any other exception of a plugin reaches
# the core as BackendFailedError.
class BackendError(Exception):
    """Base of the errors that a backend raises on purpose. The user sees its text."""


class InvalidRequestError(BackendError):
    """The request cannot be served as it is. The text says why."""


class PromptTooLongError(BackendError):
    """The prompt does not fit into the context."""

    def __init__(self, prompt_tokens: int, context_length: int) -> None:
        """Both numbers count tokens."""
        super().__init__(f"the prompt has {prompt_tokens} tokens, the context {context_length}")
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class UnsupportedError(BackendError):
    """The model or the backend does not support the operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option that one backend declares.

    The operator sets it in the configuration's table [backends.NAME]. A request may set it only with `by_request`.
    Requests come from strangers, so they must never set a path, an address, a program or a library: an option with free
    text cannot be declared with `by_request`.
    """

    name: str
    kind: type[bool] | type[int] | type[float] | type[str]
    minimum: float = -math.inf
    """The smallest value of a number."""
    maximum: float = math.inf
    """The largest value of a number."""
    choices: tuple[str, ...] = ()
    """The permitted texts; empty: any text."""
    by_request: bool = False
    """True if a request may set the option. A number then needs both bounds, and a text needs choices."""

    def __post_init__(self) -> None:
        """Raise ValueError if a request may set an unbounded option."""
        # The difference is infinite if one bound is missing, and NaN is not finite either.
        bounded = {bool: True, str: bool(self.choices)}.get(self.kind, math.isfinite(self.maximum - self.minimum))
        if self.by_request and not bounded:
            raise ValueError(f"option {self.name!r} must be bounded, since a request may set it")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintLimits:
    """Bounds on the work of constraints. A backend refuses a constraint that exceeds one and names the limit."""

    seconds: float = 5.0
    """CPU time to compile one constraint."""
    mask_seconds: float = 1.0
    """CPU time to compute which tokens may come next."""
    memory_bytes: int = 256 << 20
    """Memory of all compiled constraints of a model together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model and how to load it. All paths are absolute."""

    path: str
    adapter_paths: tuple[str, ...] = ()
    projector_paths: tuple[str, ...] = ()
    draft_path: str | None = None
    context_length: int = 4096
    """Tokens per sequence. The backend clamps it to the context length with which the model was trained."""
    parallel: int = 1
    """Number of sequences that may run at once; 0: the backend decides."""
    batch_size: int = 0
    """Tokens per prefill batch; 0: the backend decides."""
    gpu_layers: int = -1
    """Number of layers to put on GPUs; -1: the backend decides."""
    main_gpu: int | None = None
    use_mmap: bool | None = None
    threads: int = 0
    """CPU threads; 0: the backend decides."""
    draft_tokens: int = 0
    flash_attention: str = ""
    """"on", "off" or empty: the backend decides."""
    kv_cache_type: str = ""
    """Type of the KV cache, such as "q8_0"; empty: f16."""
    backend_options: Mapping[str, object] = field(default_factory=dict)
    """The backend's own options that were set, each of its declared kind."""
    memory_bytes: int = 0
    """Free memory of the machine, in bytes; 0: unknown."""
    constraint_limits: ConstraintLimits = ConstraintLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The facts of a loaded model. They do not change while it is loaded."""

    context_length: int
    """Tokens per sequence, after clamping."""
    parallel: int = 1
    """Number of sequences that may run at once: the model's slots."""
    size_bytes: int = 0
    """Total memory: weights, KV cache and buffers."""
    vram_bytes: int = 0
    """The part of `size_bytes` that is on GPUs."""
    adds_bos: bool = False
    adds_eos: bool = False
    bos_id: int = -1
    eos_id: int = -1
    bos_text: str = ""
    eos_text: str = ""
    embedding_length: int = 0
    """Length of its embedding vectors; 0: the model does not embed."""
    embedding_tokens: int = 0
    """Tokens of the longest text that it embeds; 0: the context length."""
    generates: bool = True
    vision: bool = False
    audio: bool = False


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


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability, before temperature and filters."""

    raw: bytes
    """The token's bytes, which need not be complete UTF-8."""
    token_id: int
    logprob: float
    top: tuple["TokenLogprob", ...] = ()
    """The most probable tokens at its position, best first."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """Progress of the prefill, in tokens. Optional, and only before the first TextDelta."""

    done_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The text that one decoding step added.

    It is complete UTF-8 and never contains a part of a stop string. It is empty only if it carries log-probabilities.
    """

    text: str
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


SequenceEvent: TypeAlias = Prefill | TextDelta | Finish


@dataclass(frozen=True, slots=True)
class Embedding:
    """The embedding vector of one text."""

    values: Sequence[float]
    token_count: int


class LoadedModel(ABC):
    """A loaded model. Any number of its methods may run at once; it queues those that it cannot run together."""

    @property
    @abstractmethod
    def facts(self) -> ModelFacts:
        """The facts of the model."""

    # Parameters before the slash are positional only, so a plugin may choose its own names for them.
    @abstractmethod
    def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Run a sequence: yield any number of Prefill, then TextDelta, then one Finish.

        Raises PromptTooLongError if the prompt does not fit the context, InvalidRequestError for a constraint that
        cannot be enforced or an invalid token id or value, and UnsupportedError if the model does not generate, or not
        from this input (images, say). All are raised before the first TextDelta.
        """

    @abstractmethod
    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text. Needs no slot."""

    @abstractmethod
    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return the bytes of each token; those of special tokens are empty unless `special`. Needs no slot.

        Raises InvalidRequestError for an id that the vocabulary does not have.
        """

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the embedding vectors of texts or token ids, in order, normalised to length 1 unless `raw`.

        Raises PromptTooLongError if a text does not fit, UnsupportedError if the model does not embed.
        """
        # Not abstract, so that a backend which only generates need not define it.
        raise UnsupportedError("this model does not support embeddings")

    async def rerank(self, query: str, documents: Sequence[str], /) -> list[float]:
        """Return the relevance of each document to the query, in order; a larger score is better.

        Raises UnsupportedError if the model does not rank.
        """
        raise UnsupportedError("this model does not support reranking")

    def step(self) -> int | None:
        """Return a number that changes with each step of the current work; None: the model has no work.

        The heartbeat asks for it every few seconds. The core kills the host of a model whose number stays the same for
        longer than PUNA_MAX_STEP_SECONDS. For a model without this method each event of a sequence counts as a step.
        """
        return None

    async def aclose(self) -> None:  # noqa: B027 (a model with nothing to free need not say so)
        """Free the model. Called once, when no generator is open."""


class Backend(ABC):
    """Loads models of one kind."""

    # Class attributes and not properties: the core lists and chooses backends without loading a model.
    formats: ClassVar[tuple[str, ...]] = ("gguf",)
    """Model formats that it serves."""

    # True by default: a plugin that says nothing must not be able to crash the core.
    needs_host: ClassVar[bool] = True
    """True if each model runs in a host process. Only pure asyncio code should set it to False."""

    preference: ClassVar[int] = 0
    """Decides who serves a model that names no backend: the largest preference wins, then the first name."""

    options: ClassVar[tuple[Option, ...]] = ()
    """The options that it declares. The core refuses every other option before `load`."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Names of the top-level modules that `load` imports and that Puna does not depend on. While one is not installed,
    the backend is listed as broken and no model is loaded with it. The modules are looked up, not imported."""

    install_command: ClassVar[str] = ""
    """The shell command that installs what `requires` names. Users read it in the error."""

    quantizer: ClassVar[str] = ""
    """The module of a program that rewrites GGUF files; empty: the backend has none.

    The core runs `python -m MODULE SOURCE TARGET TYPE` in a process that it can kill. TYPE is a file type such as Q8_0,
    or COPY, which keeps the tensors and writes the file anew. The program writes lines `progress DONE TOTAL`, which
    count tensors, to standard output. If it fails, it writes why to standard error and its exit status is not 0.
    """

    @abstractmethod
    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Load a model, calling `report` with the progress from 0 to 1, from any thread.

        Raises InvalidRequestError if the file is not a model that the backend can run, and MemoryError if there is no
        room. Cancelling the call frees what was loaded so far.
        """
