"""What the core answers with, free of any wire format."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from puna.backend import TokenLogprob
from puna.messages import ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """News before the first piece."""

    phase: str
    """"queued", "loading" or "prefill"."""
    position: int = 0
    """With "queued": how many requests are in front."""
    fraction: float = 0.0
    """With "loading": from 0 to 1."""
    done_tokens: int = 0
    total_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LogprobWithText(TokenLogprob):
    """A token's log-probability, where what came out with the token is not its own text."""

    piece: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one decoding step added to an answer."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counts of tokens."""

    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    output_tokens: int = 0
    truncated_tokens: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time went, in nanoseconds."""

    total_ns: int = 0
    load_ns: int = 0
    prompt_eval_ns: int = 0
    eval_ns: int = 0
    queue_ns: int = 0


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt that was rendered and not run."""

    text: str
    image_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The end of an answer: the last thing its generator yields."""

    reason: str = ""
    """"stop", "length", "load", "unload"; empty with `rendered`."""
    delta: Delta = field(default_factory=Delta)
    """What came only with the end."""
    stop_sequence: str = ""
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    context: tuple[int, ...] | None = None
    """Token ids of prompt and answer; None: not returned."""
    rendered: Rendered | None = None


Event: TypeAlias = Progress | Delta | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors in the order of the inputs."""

    vectors: tuple[Sequence[float], ...] = ()
    token_counts: tuple[int, ...] = ()
    """Of each input."""
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Places in the request and scores, best first."""

    results: tuple[tuple[int, float], ...] = ()
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A text's tokens."""

    ids: tuple[int, ...] = ()
    pieces: tuple[bytes, ...] = ()
    """Their bytes, if asked for."""
    context_length: int = 0
