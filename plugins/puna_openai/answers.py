"""Reads the events of a streamed chat completion.

The events come from another server, so nothing about them is trusted: a field of the wrong type raises NonsenseError.
A tool call arrives in fragments, the first with its name and all with pieces of its arguments. It is passed on as a
whole once the next call begins or the answer ends.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from puna.backend import ChatDelta, ChatToolCall, Finish, TokenLogprob

MOST_CALLS: Final = 128
"""Tool calls of one answer. Without a bound, an upstream could make the host hold any number of them."""


class NonsenseError(Exception):
    """The upstream sent something that is no event of a chat completion."""


@dataclass(slots=True)
class _Fragments:
    """A tool call, as far as it has arrived."""

    index: object
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def call(self) -> ChatToolCall:
        text = "".join(self.arguments).strip() or "{}"
        try:
            whole = isinstance(json.loads(text), dict)
        except (ValueError, RecursionError):
            whole = False
        if not whole:
            raise NonsenseError("the arguments of a tool call are no JSON object")
        if not self.name:
            raise NonsenseError("a tool call has no name")
        return ChatToolCall(name=self.name, arguments_json=text, id=self.id)


class AnswerReader:
    """Reads one answer, event by event."""

    def __init__(self, top_logprobs: int | None = None, stop: Sequence[str] = ()) -> None:
        """`top_logprobs`: number of alternatives of each token; None: no log-probabilities. `stop`: stop strings."""
        self._top_logprobs = top_logprobs
        self._stop = stop
        self._calls: list[_Fragments] = []
        """Calls that have not been passed on. Only the last one may still grow."""
        self._call_count = 0
        self._usage: Mapping[str, Any] = {}
        self._deltas = 0
        self.reason = ""
        """Why the answer ended, in OpenAI's words; empty as long as it goes on."""
        self.stop_sequence = ""
        self.lacks_logprobs = False
        """True if text came without the log-probabilities that were asked for."""

    def feed(self, event: object) -> ChatDelta | None:
        """Return what an event adds to the answer; None if it adds nothing. Raises NonsenseError."""
        event = _mapping(event, "an event")
        if usage := event.get("usage"):
            self._usage = _mapping(usage, "usage")
        choices = _sequence(event.get("choices"), "choices")
        if not choices:
            return None
        choice = _mapping(choices[0], "a choice")
        delta = _mapping(choice.get("delta"), "a delta")
        content = _text(delta, "content") or _text(delta, "refusal")
        # Servers disagree on the name.
        thinking = _text(delta, "reasoning_content") or _text(delta, "reasoning")
        logprobs = self._logprobs(choice.get("logprobs"))
        if content and self._top_logprobs is not None and not logprobs:
            self.lacks_logprobs = True
        for fragment in _sequence(delta.get("tool_calls"), "tool_calls"):
            self._add(_mapping(fragment, "a tool call"))
        reason = choice.get("finish_reason")
        calls = self._complete(all_=bool(reason))
        if reason:
            # Set last: an answer with a call that cannot be read has not ended well.
            self.reason = str(reason)
            # vLLM and SGLang name the stop string, which may be one of their own, or the id of an end token.
            stopped = choice.get("stop_reason", choice.get("matched_stop"))
            self.stop_sequence = stopped if stopped in self._stop else ""
        if not (content or thinking or calls or logprobs):
            return None
        self._deltas += 1
        return ChatDelta(content=content, thinking=thinking, tool_calls=calls, logprobs=logprobs)

    def finish(self, prompt_eval_ns: int, eval_ns: int) -> Finish:
        """Return the end of the answer, with the upstream's counts."""
        cached = self._usage.get("prompt_tokens_details")
        return Finish(
            reason="length" if self.reason == "length" else "stop",
            stop_sequence=self.stop_sequence,
            prompt_tokens=_count(self._usage.get("prompt_tokens")),
            cached_prompt_tokens=_count(cached.get("cached_tokens")) if isinstance(cached, Mapping) else 0,
            # An upstream that sends no counts sends about one delta for each token.
            output_tokens=_count(self._usage.get("completion_tokens")) if self._usage else self._deltas,
            prompt_eval_ns=prompt_eval_ns,
            eval_ns=eval_ns,
        )

    def _add(self, fragment: Mapping[str, Any]) -> None:
        index, id_ = fragment.get("index"), _text(fragment, "id")
        last = self._calls[-1] if self._calls else None
        # Some servers leave out the index and send whole calls, each with an id of its own.
        begins = last is None or index != last.index or (index is None and id_ not in ("", last.id))
        if begins:
            self._call_count += 1
            if self._call_count > MOST_CALLS:
                raise NonsenseError(f"the answer has more than {MOST_CALLS} tool calls")
            last = _Fragments(index)
            self._calls.append(last)
        assert last is not None
        function = _mapping(fragment.get("function"), "the function of a tool call")
        last.id = last.id or id_
        # The name comes whole. Some servers repeat it in each fragment.
        last.name = last.name or _text(function, "name")
        arguments = function.get("arguments")
        # A few servers send the arguments as an object.
        last.arguments.append(json.dumps(arguments) if isinstance(arguments, dict) else _text(function, "arguments"))

    def _complete(self, *, all_: bool) -> tuple[ChatToolCall, ...]:
        count = len(self._calls) if all_ else len(self._calls) - 1
        if count <= 0:
            return ()
        complete, self._calls = self._calls[:count], self._calls[count:]
        return tuple(each.call() for each in complete)

    def _logprobs(self, found: object) -> tuple[TokenLogprob, ...]:
        most = self._top_logprobs
        if most is None:
            return ()
        entries = _sequence(_mapping(found, "logprobs").get("content"), "logprobs")
        return tuple(_logprob(_mapping(each, "a log-probability"), most) for each in entries)


def _logprob(entry: Mapping[str, Any], most: int) -> TokenLogprob:
    found = (_mapping(each, "a log-probability") for each in _sequence(entry.get("top_logprobs"), "top_logprobs"))
    top = [TokenLogprob(_bytes(other), -1, _logarithm(other)) for other in found]
    # Some servers add the sampled token to the list, in any place.
    best = sorted(top, key=lambda each: -each.logprob)[:most]
    return TokenLogprob(raw=_bytes(entry), token_id=-1, logprob=_logarithm(entry), top=tuple(best))


def _logarithm(entry: Mapping[str, Any]) -> float:
    value = entry.get("logprob")
    # Rounding may put the logarithm of a certain token a little above 0.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value > 1e-3:
        raise NonsenseError("a log-probability is no logarithm")
    return min(float(value), 0.0)


def _bytes(entry: Mapping[str, Any]) -> bytes:
    raw = entry.get("bytes")
    try:
        return bytes(raw) if isinstance(raw, list) else _text(entry, "token").encode()
    except (TypeError, ValueError):
        raise NonsenseError("the bytes of a token are no bytes") from None


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise NonsenseError(f"{name} is no object")
    return value


def _sequence(value: object, name: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise NonsenseError(f"{name} is no list")
    return value


def _text(mapping: Mapping[str, Any], key: str) -> str:
    value = mapping.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise NonsenseError(f"{key} is no text")
    # A lone surrogate cannot be written as UTF-8. JSON can escape half of a character.
    return value if value.isascii() else value.encode(errors="surrogatepass").decode(errors="replace")


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31 else 0
