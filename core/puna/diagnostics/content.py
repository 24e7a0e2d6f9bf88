"""The private part of a record: prompts, answers and other texts, within a bound and as far as the settings keep them.

Theory. Texts are kept as UTF-8, so their length is the memory that they take. The inputs of a request and its answers
have a budget each, so a long prompt leaves room for the answer. A text is cut to its budget and then charged to the
bound on all records, which may grant less. Passages that the operator's patterns match are removed before a text is
cut, because the first part of a secret may match no pattern. Images and sounds are never kept, only their size and
digest.
"""

import array
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, Final, TypeAlias

from puna.backend import ChatInput, ChatMessage, SequenceRequest
from puna.diagnostics.redaction import Redaction
from puna.messages import ToolCall
from puna.serving.answers import Delta
from puna.serving.requests import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    RequestOptions,
    RerankRequest,
    ScoreRequest,
)

ReadRequest: TypeAlias = GenerateRequest | ChatRequest | EmbedRequest | RerankRequest | ScoreRequest
Reserve: TypeAlias = Callable[[int], int]
"""Charges a number of bytes to the bound on all records; returns how many of them are granted."""

OVERHEAD: Final = 1024
"""Bytes that a record without texts is charged."""
LEAST: Final = 64
"""Bytes that a text counts at least, so that many empty texts are bounded too."""
MARGIN: Final = 4096
"""Characters behind the budget that are searched for passages to remove."""
LONGEST_ERROR: Final = 8192
"""Bytes of the text of an error."""
_DEFAULTS: Final = {
    name: getattr(RequestOptions(start_ns=0), name)
    for name in ("truncate", "shift", "thinking_budget", "logprobs", "top_logprobs", "keep_alive", "priority")
}
"""Options that a record has only if a request sets them, and their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The kinds of texts that records keep."""

    prompts: bool = True
    answers: bool = True
    redaction: Redaction = field(default_factory=Redaction)
    max_bytes: int = 1 << 20
    """Bytes of the inputs of one record, and as many of its answers."""


class _Part(IntEnum):
    """The parts of a record with a budget each; an index of the list of budgets."""

    INPUT = 0
    ANSWER = 1


@dataclass(slots=True)
class RecordedSequence:
    """A sequence that was submitted to the model. Texts are UTF-8."""

    choice: int
    prompt: bytes = b""
    token_ids: Sequence[int] = ()
    messages_json: bytes = b""
    constraint: str = ""


@dataclass(slots=True)
class RecordedMedia:
    """An image or a sound."""

    size_bytes: int
    digest: str = ""
    """SHA-256 in hexadecimal digits; empty until it is computed."""


@dataclass(slots=True)
class RecordedAnswer:
    """The texts of one answer, in UTF-8."""

    choice: int
    text: bytes = b""
    thinking: bytes = b""
    tool_calls: list[tuple[ToolCall, bytes]] = field(default_factory=list)
    """Each call, without its arguments, with the JSON text of its arguments."""


class Content:
    """The texts of one request."""

    def __init__(self, policy: Policy, reserve: Reserve) -> None:
        self._policy = policy
        self._reserve = reserve
        self._left = [policy.max_bytes] * len(_Part)
        self.size = reserve(OVERHEAD)
        """Bytes that are charged to the bound on all records."""
        self.options_json = b""
        self.sequences: list[RecordedSequence] = []
        self.inputs: list[bytes] = []
        self.media: list[RecordedMedia] = []
        self.answers: list[RecordedAnswer] = []
        self.error = b""
        self.truncated = False
        self.redacted = 0
        """Number of passages that were removed."""

    @property
    def prompt_omitted(self) -> bool:
        """True: the settings keep no prompts."""
        return not self._policy.prompts

    @property
    def answer_omitted(self) -> bool:
        """True: the settings keep no answers."""
        return not self._policy.answers

    def copy(self) -> "Content":
        """Return a copy to which an answer may be added, and which is charged to nothing."""
        found = Content(self._policy, lambda count: count)
        for name, value in vars(self).items():
            if name != "_reserve":
                setattr(found, name, value.copy() if isinstance(value, list | dict) else value)
        return found

    def add_request(self, request: ReadRequest, hash_later: Callable[[RecordedMedia, bytes], None]) -> None:
        """Keep what a request sets and sends, but not its prompt, which comes with its sequences.

        `hash_later` is called with each image and sound; it sets the digest.
        """
        if not self.options_json:
            self.options_json = self._json(self._options(request.options), _Part.INPUT)
        for data in _media_of(request):
            if not self._fits(LEAST, _Part.INPUT):
                return
            self.media.append(media := RecordedMedia(len(data)))
            hash_later(media, data)
        self._add_inputs(_inputs_of(request))

    def add_unrendered(self, request: ReadRequest) -> None:
        """Keep the conversation or the text of a request, unless it came to a sequence, which has it as a prompt."""
        if not self.sequences:
            self._add_inputs(_unrendered(request))

    def _add_inputs(self, texts: Iterable[str | tuple[int, ...]]) -> None:
        if not self._policy.prompts:
            return
        for each in texts:
            if not self._has_room(_Part.INPUT):
                return
            self.inputs.append(self._text(self._without_ids(each), _Part.INPUT))

    def add_sequence(self, request: SequenceRequest, choice: int) -> None:
        """Keep a sequence with its prompt."""
        if not self._fits(LEAST, _Part.INPUT):
            return
        found = RecordedSequence(choice, constraint=request.constraint.kind if request.constraint is not None else "")
        self.sequences.append(found)
        if not self._policy.prompts:
            return
        if request.chat is not None:
            found.messages_json = self._messages(request.chat)
        elif isinstance(request.prompt, str):
            found.prompt = self._text(request.prompt, _Part.INPUT)
        elif self._policy.redaction:
            self._without_ids(request.prompt)
        else:
            ids = array.array("i", request.prompt[: max(self._left[_Part.INPUT], 0) // 4])
            granted = self._charge(4 * len(ids), _Part.INPUT) // 4
            found.token_ids = ids[:granted]
            self.truncated = self.truncated or granted < len(request.prompt)

    def add_answer(self, deltas: Sequence[Delta]) -> None:
        """Keep the texts of an answer."""
        if not self._policy.answers:
            return
        texts: dict[int, tuple[list[str], list[str], list[ToolCall]]] = {}
        # Each text is cut below. What lies behind the budget need not even be joined.
        rest = self._policy.max_bytes + MARGIN
        for each in deltas:
            if rest <= 0:
                self.truncated = True
                break
            own = texts.setdefault(each.choice, ([], [], []))
            own[0].append(each.text)
            own[1].append(each.thinking)
            own[2].extend(each.tool_calls)
            rest -= len(each.text) + len(each.thinking) + 1
        for choice, (text, thinking, calls) in sorted(texts.items()):
            if not self._fits(LEAST, _Part.ANSWER):
                return
            answer = RecordedAnswer(choice)
            answer.text = self._text("".join(text), _Part.ANSWER)
            answer.thinking = self._text("".join(thinking), _Part.ANSWER)
            self.answers.append(answer)
            for call in calls:
                if not self._has_room(_Part.ANSWER):
                    return
                answer.tool_calls.append(self._call(call))

    def add_error(self, text: str) -> None:
        """Keep the text of an error. It may quote the request, so it is left out if no prompts are kept."""
        if text and self._policy.prompts:
            # Errors are short, and the budgets may be used up when one occurs.
            raw = self._redacted(text, LONGEST_ERROR)
            granted = self._reserve(min(len(raw), LONGEST_ERROR))
            self.error = raw[:granted]
            self.size += granted
            self.truncated = self.truncated or granted < len(raw)

    def _without_ids(self, given: str | tuple[int, ...]) -> str:
        """Return a text, or token ids as text.

        Patterns apply to text, and ids could be turned into text again. So with patterns, ids are left out.
        """
        if isinstance(given, str):
            return given
        if self._policy.redaction:
            self.redacted += 1
            return ""
        # An id takes two characters at least.
        return json.dumps(given[: max(self._left[_Part.INPUT], 0) // 2])

    def _options(self, options: RequestOptions) -> str:
        return json.dumps(_set_options(options) if self._policy.prompts else dict.fromkeys(_set_options(options)))

    def _call(self, call: ToolCall) -> tuple[ToolCall, bytes]:
        id_, name = (self._text(each, _Part.ANSWER).decode() for each in (call.id, call.name))
        kept = ToolCall(id=id_, name=name, index=call.index, arguments="")
        return kept, self._json(call.arguments, _Part.ANSWER)

    def _messages(self, chat: ChatInput) -> bytes:
        """Keep the last messages of a conversation, as many as fit, as JSON text. Of images, it has the number."""
        rest, found = self._left[_Part.INPUT], list[dict[str, Any]]()
        for each in reversed(chat.messages):
            rest -= LEAST + len(each.content) + len(each.thinking)
            rest -= sum(len(call.arguments_json) for call in each.tool_calls)
            if rest < 0:
                self.truncated = True
                break
            found.append(_message(each))
        return self._json(json.dumps(found[::-1], ensure_ascii=False), _Part.INPUT)

    def _json(self, text: str, part: _Part) -> bytes:
        """Keep a JSON text as a whole, or leave it out: a part of it would not be JSON."""
        if len(text) > self._left[part] + MARGIN:
            self.truncated = True
            return b""
        redacted, count = self._policy.redaction.json_text(_encodable(text))
        raw = redacted.encode()
        if not self._fits(len(raw), part):
            return b""
        self.redacted += count
        return raw

    def _text(self, text: str, part: _Part) -> bytes:
        """Keep as much of the beginning of a text as fits."""
        left = max(self._left[part], 0)
        raw = self._redacted(text, left)
        taken = raw[: self._charge(min(len(raw), left), part)]
        if len(taken) < len(raw):
            self.truncated = True
            # The cut may lie within a character.
            taken = taken.decode(errors="ignore").encode()
        return taken

    def _redacted(self, text: str, most: int) -> bytes:
        """Return the beginning of a text without passages to remove: about `most` bytes and up to MARGIN more."""
        found, count = self._policy.redaction.text(_encodable(text[: most + MARGIN]))
        self.redacted += count
        if len(text) > most + MARGIN:
            self.truncated = True
            # A passage that the slice has cut is still there, and what was removed before it has moved it forward.
            found = found[:-MARGIN]
        return found.encode()

    def _has_room(self, part: _Part) -> bool:
        """Return whether the budget of a part has anything left; note it if not."""
        self.truncated = self.truncated or self._left[part] <= 0
        return self._left[part] > 0

    def _fits(self, count: int, part: _Part) -> bool:
        """Charge bytes that are of use together alone. Return whether they are granted."""
        if count <= self._left[part]:
            granted = self._charge(count, part)
            if granted == count:
                return True
        self.truncated = True
        return False

    def _charge(self, count: int, part: _Part) -> int:
        """Charge up to `count` bytes; return how many are granted."""
        granted = self._reserve(count)
        self.size += granted
        self._left[part] -= max(granted, LEAST)
        return granted


def _encodable(text: str) -> str:
    """Return a text with "?" for lone surrogates, which UTF-8 cannot carry."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _media_of(request: ReadRequest) -> list[bytes]:
    if isinstance(request, GenerateRequest):
        return list(request.media)
    return [data for each in request.messages for data in each.media] if isinstance(request, ChatRequest) else []


def _inputs_of(request: ReadRequest) -> Sequence[str | tuple[int, ...]]:
    """Return the texts to embed, to rank or to score. Those of other requests come as prompts of sequences."""
    if isinstance(request, EmbedRequest):
        return request.inputs
    if isinstance(request, RerankRequest):
        return [request.query, *request.documents]
    if isinstance(request, ScoreRequest):
        return request.continuations
    return []


def _unrendered(request: ReadRequest) -> Iterator[str | tuple[int, ...]]:
    """Yield the messages of a conversation, or the system message and the text of a prompt."""
    if isinstance(request, ChatRequest):
        for each in request.messages:
            calls = "".join(f"\n{call.name} {call.arguments}" for call in each.tool_calls)
            yield f"{each.role}: {each.content}{calls}"
    elif isinstance(request, GenerateRequest):
        if request.system:
            yield f"system: {request.system}"
        if request.prompt:
            yield request.prompt


def _set_options(options: RequestOptions) -> Mapping[str, Any]:
    """Return the options that a request sets, by the names that Modelfiles use where they have any."""
    found = {name: _plain(value) for name, value in options.values.items()}
    for name, default in _DEFAULTS.items():
        if (value := getattr(options, name)) != default:
            found[name] = _plain(value)
    if options.think is not None:
        found["think"] = options.think.level or options.think.on
    if options.logit_bias:
        found["logit_bias"] = {str(token): _plain(bias) for token, bias in options.logit_bias.items()}
    return found


def _plain(value: object) -> object:
    """Return a value that JSON can express."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _message(message: ChatMessage) -> dict[str, Any]:
    more = {
        "thinking": message.thinking,
        "tool_calls": [asdict(call) for call in message.tool_calls],
        "tool_name": message.tool_name,
        "tool_call_id": message.tool_call_id,
        "media_count": len(message.media),
    }
    found = {"role": message.role, "content": message.content}
    return found | {name: value for name, value in more.items() if value}
