"""The contract between puna and a backend plugin. It is all that a plugin needs to import.

A plugin is a distribution with an entry point in the group `puna.backends` that names a Backend subclass:

    [project.entry-points."puna.backends"]
    parrot = "puna_parrot:ParrotBackend"

The core owns what is the same for every backend: names, the store, templates, truncation, tool calls and thinking,
keep-alive and the queue. A backend takes a prompt as text or tokens and gives text deltas back.

Lifetimes: a Backend lives as long as the process that runs it. A LoadedModel lives from `load` to `aclose`; every
generator it handed out is closed before that.

Cancellation: a sequence is stopped by closing its generator, which raises GeneratorExit (or CancelledError, when it is
waiting) at the current `yield` or `await`. Clean up in `finally`, and have the decoding end soon, also in the middle of
a prompt's evaluation: somebody else waits for the place.

Processes: unless it says otherwise, a backend runs in a host, a process of its own for every loaded model, so that a
crash of native code costs the requests of one model. Import heavy libraries in `load`, not with the module: the core
imports the module to read the class's attributes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

ENTRY_POINT_GROUP = "puna.backends"


class BackendError(Exception):
    """What a backend raises on purpose. Its text is shown to the user."""


class InvalidRequestError(BackendError):
    """The request cannot be served as it is; the text says why."""


class PromptTooLongError(BackendError):
    """The prompt does not fit into the context."""

    def __init__(self, prompt_tokens: int, context_length: int) -> None:
        """Say both numbers, in tokens."""
        super().__init__(f"the prompt has {prompt_tokens} tokens, the context {context_length}")
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class UnsupportedError(BackendError):
    """This model or this backend cannot do what is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of one backend.

    The operator sets it in the configuration's table [backends.NAME]. A request may set it only if `by_request` says
    so. Requests come from strangers, so they never set an option that holds a path, an address, a program or a library:
    an option with free text is refused here unless it is the operator's alone.
    """

    name: str
    kind: type[bool] | type[int] | type[float] | type[str]
    minimum: float = -math.inf
    """The least number."""
    maximum: float = math.inf
    """The largest number."""
    choices: tuple[str, ...] = ()
    """The texts that are allowed; empty: any."""
    by_request: bool = False
    """True if a request may set it. A number then needs both bounds, and a text its choices."""

    def __post_init__(self) -> None:
        """Raise ValueError if a request may set what has no bounds."""
        bounded = {bool: True, str: bool(self.choices)}.get(self.kind, math.isfinite(self.maximum - self.minimum))
        if self.by_request and not bounded:
            raise ValueError(f"option {self.name!r} must be bounded, since a request may set it")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintLimits:
    """Bounds on constraints. A backend refuses a constraint that exceeds one, and names the limit."""

    seconds: float = 5.0
    """Processor time to read one."""
    mask_seconds: float = 1.0
    """Processor time to find out which tokens may come next."""
    memory_bytes: int = 256 << 20
    """Memory of all constraints of a model together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model and how to load it. Paths are absolute."""

    path: str
    adapter_paths: tuple[str, ...] = ()
    projector_paths: tuple[str, ...] = ()
    draft_path: str | None = None
    context_length: int = 4096
    """Tokens, for each sequence. The backend clamps it to what the model was trained for."""
    parallel: int = 1
    """How many sequences may run at once; 0: as many as the backend finds fit."""
    batch_size: int = 0
    """Tokens per prefill batch; 0: the backend decides."""
    gpu_layers: int = -1
    """Layers to put on GPUs; -1: the backend decides."""
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
    """Those of the backend's own options that were set, each of its declared kind."""
    memory_bytes: int = 0
    """Memory of the machine that is free for it; 0: not known."""
    constraint_limits: ConstraintLimits = ConstraintLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a loaded model turned out to be."""

    context_length: int
    """Tokens, for each sequence, after clamping."""
    parallel: int = 1
    """How many sequences may run at once."""
    size_bytes: int = 0
    """Memory in all: weights, KV cache and buffers."""
    vram_bytes: int = 0
    """The part of it on GPUs."""
    adds_bos: bool = False
    adds_eos: bool = False
    bos_id: int = -1
    eos_id: int = -1
    bos_text: str = ""
    eos_text: str = ""
    embedding_length: int = 0
    """Length of its embedding vectors; 0 when it makes none."""
    embedding_tokens: int = 0
    """Tokens of the longest text that it embeds; 0: as many as the context has."""
    generates: bool = True
    vision: bool = False
    audio: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a token is drawn. In this order: penalties, top-k, typical-p, top-p, min-p, temperature."""

    temperature: float = 0.8
    """0 always takes the likeliest token."""
    top_k: int = 40
    """0 keeps all."""
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    """How many recent tokens the penalties look at; -1: the whole context; 0: none."""
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    """32 bits; None draws a fresh one."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a text must look like: enforced token by token, or the request is refused."""

    kind: str
    """"json_schema", "gbnf", "lark" or "regex"."""
    text: str
    """The schema (raw JSON text), grammar or expression. In Lark `%json SCHEMA` is JSON of a schema, and `%mark "TEXT"`
    the special token that is spelled so, or the text where the vocabulary has no such token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRequest:
    """A prompt and how to go on from it."""

    prompt: str | tuple[int, ...]
    """Text: special tokens in it count as such, and BOS is added if the model wants it. Token ids: used as they are."""
    media: tuple[bytes, ...] = ()
    """Pictures and sounds; the text has a marker "[img-N]" for the N-th."""
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 128
    """How many tokens to generate at most; 0: evaluate the prompt and end with reason "length"."""
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None
    top_logprobs: int | None = None
    """None: no log-probabilities. Otherwise how many alternatives come with each token."""
    keep_tokens: int = 0
    """Tokens at the start that a context shift keeps, BOS not counted; -1: the whole prompt."""
    shift: bool = True
    """Whether a full context forgets the older half of what follows the kept tokens; otherwise it ends the sequence."""
    preserved_tokens: tuple[str, ...] = ()
    """Special tokens that appear in the text instead of being swallowed."""
    cache_salt: str = ""
    """Cached prefixes are shared only among sequences of the same salt."""
    priority: int = 0
    """Larger runs first."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with the natural logarithm of its probability, before temperature and filters."""

    raw: bytes
    """The token's bytes, which need not be whole UTF-8."""
    token_id: int
    logprob: float
    top: tuple["TokenLogprob", ...] = ()
    """The likeliest tokens at its place, best first."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """How far a prompt's evaluation is, in tokens. Optional, and only before the first TextDelta."""

    done_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one decoding step added: whole UTF-8, never a part of a stop string. Empty only if it carries logprobs."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The end of a sequence: the last thing its generator yields."""

    reason: str
    """"stop": an end token or a stop string; "length": `max_tokens`, or the context's end without shift."""
    stop_sequence: str = ""
    prompt_tokens: int = 0
    """Of the whole prompt, cached ones included."""
    cached_prompt_tokens: int = 0
    output_tokens: int = 0
    """Sampled tokens, those of stop strings and the end token included."""
    prompt_eval_ns: int = 0
    """Time to evaluate what was not cached."""
    eval_ns: int = 0
    """Time to decode."""
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0


SequenceEvent: TypeAlias = Prefill | TextDelta | Finish


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of one text."""

    values: Sequence[float]
    token_count: int


class LoadedModel(ABC):
    """A model that is ready. Any number of its methods may run at once; it queues what it cannot run together."""

    @property
    @abstractmethod
    def facts(self) -> ModelFacts:
        """What it turned out to be."""

    @abstractmethod
    def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Go on from a prompt: any Prefill, then TextDeltas, then one Finish.

        PromptTooLongError: the prompt does not fit. InvalidRequestError: a constraint that cannot be enforced, a bad
        token id or value. UnsupportedError: the model does not generate, or not from this (pictures, say). All are
        raised before the first TextDelta.
        """

    @abstractmethod
    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the ids of a text. Takes no sequence's place."""

    @abstractmethod
    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return each token's bytes; those of special tokens are empty unless `special`. Takes no sequence's place.

        InvalidRequestError: an id that is none.
        """

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the vectors of texts (or token ids), in order, of length 1 unless `raw`.

        PromptTooLongError: a text does not fit. UnsupportedError: the model does not embed.
        """
        raise UnsupportedError("this model does not support embeddings")

    async def rerank(self, query: str, documents: Sequence[str], /) -> list[float]:
        """Return how well each document fits the query, in order; larger is better.

        UnsupportedError: the model does not rank.
        """
        raise UnsupportedError("this model does not support reranking")

    def step(self) -> int | None:
        """Return a number that changes with each step of the work under way; None: no work is under way.

        The core asks every few seconds and kills the host of a model whose number stays the same for longer than
        PUNA_MAX_STEP_SECONDS. Without this method each event of a sequence counts as a step.
        """
        return None

    async def aclose(self) -> None:  # noqa: B027 (a model with nothing to free need not say so)
        """Free what the model holds. Called once, when no generator is open."""


class Backend(ABC):
    """Loads models of one kind."""

    formats: ClassVar[tuple[str, ...]] = ("gguf",)
    """Model formats it serves."""

    needs_host: ClassVar[bool] = True
    """Whether it runs in a process of its own for each model. Only pure asyncio code should say False."""

    preference: ClassVar[int] = 0
    """Who serves a model that names no backend: the largest preference, then the first name."""

    options: ClassVar[tuple[Option, ...]] = ()
    """Its own options. The core refuses every other option before `load`."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Names of the top-level modules that `load` imports and that Puna does not depend on. While one is not installed,
    the backend is listed as broken and no model is loaded with it. The modules are looked up, not imported."""

    install_command: ClassVar[str] = ""
    """The shell command that installs what `requires` names. Users read it in the error."""

    @abstractmethod
    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Make a model ready, telling `report` how far it is, from 0 to 1.

        InvalidRequestError: the file is no model that it can run. MemoryError: there is no room. Cancelling it frees
        what was loaded so far.
        """
