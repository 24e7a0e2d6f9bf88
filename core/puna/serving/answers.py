"""The events and results of requests, independent of any wire format."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from puna.backend import TokenLogprob
from puna.messages import ToolCall, ToolCallDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a request before its first delta."""

    phase: str
    """"queued", "loading" or "prefill"."""
    position: int = 0
    """With "queued": number of requests in front."""
    fraction: float = 0.0
    """With "loading": from 0 to 1."""
    done_bytes: int = 0
    """With "loading": bytes of the model's files that a node has fetched or verified."""
    total_bytes: int = 0
    """With "loading": bytes that a node has to fetch or to verify."""
    done_tokens: int = 0
    total_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LogprobWithText(TokenLogprob):
    """A token's log-probability with the text that was sent for the token, where that is not the token's own text."""

    # The text differs from the bytes of the token where one delta holds several tokens, or where a stop string cut it.
    piece: str = ""


# Not frozen: one is made for each token, and a frozen one takes twice as long.
@dataclass(slots=True, kw_only=True)
class Delta:
    """The part of an answer that one decoding step added."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_call_deltas: tuple[ToolCallDelta, ...] = ()
    """Parts of the arguments of calls, for requests with `tool_call_deltas`. They come before the calls themselves."""
    choice: int = 0
    """Index of the answer to which it belongs, if the request asks for several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of a request."""

    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    output_tokens: int = 0
    truncated_tokens: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    thinking_tokens: int = 0
    """Counted if the request has a thinking budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Durations of a request's parts, in nanoseconds."""

    total_ns: int = 0
    load_ns: int = 0
    prompt_eval_ns: int = 0
    eval_ns: int = 0
    queue_ns: int = 0


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt that was rendered and not run, for requests with `render_only`."""

    text: str
    image_count: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """The token counts of a prompt that was not run, for requests with `count_only`."""

    prompt_tokens: int
    truncated_tokens: int
    context_length: int
    """In tokens; 0: unknown."""
    token_ids: tuple[int, ...] = ()
    """The tokens of the prompt; empty if only the backend knows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceDone:
    """The end of one of several answers, after its last Delta."""

    choice: int
    """Its index."""
    reason: str
    """"stop" or "length"."""
    called: bool = False
    """Whether the answer has tool calls."""
    stop_sequence: str = ""
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The end of an answer: the last event that its generator yields."""

    reason: str = ""
    """"stop", "length", "load", "unload"; empty with `rendered` and `counted`."""
    # The end and the last part of the text are one event, because Ollama sends both in one message.
    delta: Delta = field(default_factory=Delta)
    """The part of the answer that was held back until its end."""
    stop_sequence: str = ""
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    context: tuple[int, ...] | None = None
    """Token ids of prompt and answer; None: not returned."""
    choices: tuple[ChoiceDone, ...] = ()
    """The ends of all answers by their indexes, if the request asks for several. `reason` is that of the first then,
    and `usage` counts the prompt once and the output of all."""
    rendered: Rendered | None = None
    counted: Counted | None = None


Event: TypeAlias = Progress | Delta | ChoiceDone | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors in the order of the inputs."""

    vectors: tuple[Sequence[float], ...] = ()
    token_counts: tuple[int, ...] = ()
    """Number of tokens of each input."""
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Indexes of documents in the request with their scores, best first."""

    results: tuple[tuple[int, float], ...] = ()
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The log-probability of one continuation."""

    logprob: float = 0.0
    """The sum over its tokens."""
    token_count: int = 0
    is_greedy: bool = True
    """Whether each of its tokens is the most probable one at its place."""
    tokens: tuple[TokenLogprob, ...] = ()
    """Its tokens, if the request asks for log-probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores in the order of the continuations."""

    results: tuple[Score, ...] = ()
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens of a text."""

    ids: tuple[int, ...] = ()
    pieces: tuple[bytes, ...] = ()
    """The bytes of each token, if the request asks for them."""
    context_length: int = 0
