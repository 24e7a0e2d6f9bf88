"""The requests that serving takes, independent of any wire format."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from puna.messages import Message, Think, Tool, ToolChoice

BACKGROUND_PRIORITY: Final = -(1 << 31)
"""Priority of requests of batches. All others have a larger one."""


@dataclass(frozen=True, slots=True)
class OutputConstraint:
    """Structured output: a constraint on the text as the client sent it, not yet checked."""

    kind: str
    """"json_object", "json_schema", "gbnf", "lark" or "regex"."""
    text: str = ""
    """The schema (raw JSON text), grammar or expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """Everything about a request but its input."""

    # Kept by name until the model is known, because the model's own parameters lie between these and the defaults.
    values: Mapping[str, Any] = field(default_factory=dict)
    """Options by the names that Modelfiles use, not yet checked."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    truncate: bool = False
    """Whether a prompt longer than the context may be shortened."""
    shift: bool | None = None
    """Whether a full context is shifted; None: the model's default."""
    constraint: OutputConstraint | None = None
    think: Think | None = None
    """None: the model's default."""
    think_if_possible: bool = False
    """Whether `think` and `thinking_budget` are ignored, rather than refused, where they cannot be obeyed."""
    thinking_budget: int | None = None
    """Largest number of tokens that the model may think; None: no limit."""
    logprobs: bool = False
    top_logprobs: int = 0
    keep_alive: float | None = None
    """Seconds that the model stays loaded afterwards; infinity: for good; None: unchanged."""
    priority: int = 0
    """Waiting requests of larger priority are served first."""
    cache_salt: str = ""
    # The bridge sets it to the arrival of the HTTP request, so that durations include the bridge's own work.
    start_ns: int = field(default_factory=time.time_ns)
    """When the request arrived, in nanoseconds since 1970."""
    backend_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options that backends declare, by the backend's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """A prompt to complete."""

    model: str
    prompt: str | tuple[int, ...] = ""
    """Text, or token ids with `raw`. Empty text: only load or unload the model."""
    suffix: str = ""
    system: str = ""
    template: str = ""
    raw: bool = False
    media: tuple[bytes, ...] = ()
    context: tuple[int, ...] | None = None
    """Token ids of an earlier prompt and answer, with which this prompt begins. An empty tuple differs from None: the
    model's preset messages are then left out."""
    n: int = 1
    """Number of answers."""
    render_only: bool = False
    """Whether to return the prompt instead of running it."""
    count_only: bool = False
    """Whether to return the number of tokens of the prompt instead of running it."""
    options: RequestOptions = field(default_factory=RequestOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation to continue."""

    model: str
    messages: tuple[Message, ...] = ()
    """Empty: only load or unload the model."""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    tool_call_deltas: bool = False
    """Whether the arguments of calls are also sent while they are written."""
    n: int = 1
    """Number of answers."""
    render_only: bool = False
    """Whether to return the prompt instead of running it."""
    count_only: bool = False
    """Whether to return the number of tokens of the prompt instead of running it."""
    options: RequestOptions = field(default_factory=RequestOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """Texts to embed."""

    model: str
    inputs: tuple[str, ...] = ()
    """Empty: only load the model."""
    truncate: bool = False
    """Whether a text longer than the context is truncated."""
    dimensions: int = 0
    """Number of leading dimensions to keep of each vector; 0, or no smaller than the vector: all."""
    raw: bool = False
    """Whether to return vectors as the backend computed them; otherwise they are normalised to length 1."""
    options: RequestOptions = field(default_factory=RequestOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """A query and the documents to rank."""

    model: str
    query: str
    documents: tuple[str, ...] = ()
    top_n: int = 0
    """Number of documents to return; 0: all."""
    truncate: bool = False
    options: RequestOptions = field(default_factory=RequestOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """A context and the continuations to score, each as text or token ids."""

    model: str
    context: str | tuple[int, ...] = ""
    continuations: tuple[str | tuple[int, ...], ...] = ()
    options: RequestOptions = field(default_factory=RequestOptions)
