"""What can be asked of the core, free of any wire format."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from puna.messages import Message, Think, Tool, ToolChoice


@dataclass(frozen=True, slots=True)
class OutputConstraint:
    """What a text must look like, not yet checked."""

    kind: str
    """"json_object", "json_schema", "gbnf", "lark" or "regex"."""
    text: str = ""
    """The schema (raw JSON text), grammar or expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """Everything about a request that is not its input."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """Options by the names that Modelfiles use, unchecked."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    truncate: bool = False
    """Whether a prompt longer than the context may be shortened."""
    shift: bool | None = None
    """Whether generation goes on when the context is full; None: the model's default."""
    constraint: OutputConstraint | None = None
    think: Think | None = None
    """None: the model's default."""
    think_if_possible: bool = False
    """Whether a model that cannot think is not an error."""
    logprobs: bool = False
    top_logprobs: int = 0
    keep_alive: float | None = None
    """Seconds that the model stays loaded afterwards; infinity: for good; None: as it was."""
    priority: int = 0
    """Larger runs first among those that wait."""
    cache_salt: str = ""
    start_ns: int = field(default_factory=time.time_ns)
    """When the request arrived, in nanoseconds since 1970."""
    backend_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of single backends, by the plugin's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """A prompt and how to go on from it."""

    model: str
    prompt: str | tuple[int, ...] = ""
    """Text, or token ids with `raw`. Empty text: the model is loaded or unloaded, nothing more."""
    suffix: str = ""
    system: str = ""
    template: str = ""
    raw: bool = False
    media: tuple[bytes, ...] = ()
    context: tuple[int, ...] | None = None
    """Token ids that an earlier answer ended with; an empty tuple is not the same as None."""
    render_only: bool = False
    options: RequestOptions = field(default_factory=RequestOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation to go on with."""

    model: str
    messages: tuple[Message, ...] = ()
    """Empty: the model is loaded or unloaded, nothing more."""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    render_only: bool = False
    options: RequestOptions = field(default_factory=RequestOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """Texts to turn into vectors."""

    model: str
    inputs: tuple[str, ...] = ()
    """Empty: the model is loaded, nothing more."""
    truncate: bool = False
    """Whether a text longer than the context is cut."""
    dimensions: int = 0
    """Length to cut vectors to; 0, less, or more than there are: all."""
    raw: bool = False
    """Whether vectors come as the backend made them, otherwise they have length 1."""
    options: RequestOptions = field(default_factory=RequestOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """A query and what to order by it."""

    model: str
    query: str
    documents: tuple[str, ...] = ()
    top_n: int = 0
    """How many to return; 0: all."""
    truncate: bool = False
    options: RequestOptions = field(default_factory=RequestOptions)
