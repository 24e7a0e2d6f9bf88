"""Makes the deltas of the tool calls in one answer, beside the parser that reads the complete calls.

puna.prompt.call_deltas reads what the parser is waiting for. This module gives each call its index and its id with the
first delta, and matches the complete calls of the parser with what was sent of them, so that the deltas of a call,
joined, always have the value of the call's arguments.
"""

import json
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

from puna.messages import Tool, ToolCall, ToolCallDelta
from puna.prompt.call_deltas.reader import CallsReader, Notation, StreamedCall
from puna.prompt.parsed import OpenCalls


def call_id() -> str:
    """Return a fresh id for a tool call."""
    # Ollama's ids have this form.
    return "call_" + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


@dataclass(frozen=True, slots=True)
class _Sent:
    """A call of which deltas were sent, and the complete call was not yet."""

    call: StreamedCall
    index: int
    id: str

    @property
    def arguments(self) -> str:
        return "".join(self.call.parts)

    def begins(self, call: ToolCall) -> bool:
        """Return whether the deltas so far belong to a complete call."""
        if self.call.name != call.name:
            return False
        sent = self.arguments
        # Keys that a model writes twice, and sorted keys of inner objects, differ in text and not in value.
        return call.arguments.startswith(sent) or (self.call.closed and _equal(sent, call.arguments))


class CallDeltas:
    """The deltas of the calls in one answer."""

    def __init__(self, notation: Notation | None, tools: Sequence[Tool]) -> None:
        """`notation`: how the model writes calls. None: each call is one delta."""
        self._notation = notation
        self._tools = tools
        self._reader: CallsReader | None = None
        self._sent: list[_Sent] = []
        self._count = 0

    def advance(
        self, text: str, calls: Sequence[ToolCall], opened: OpenCalls | None
    ) -> tuple[list[ToolCallDelta], tuple[ToolCall, ...]]:
        """Return the deltas for a text of the answer, and the calls that it completes, with their indexes and ids.

        `calls` are the complete calls and `opened` the open ones, after the parser has read the text.
        """
        out = self._read(text)
        complete = tuple([self._complete(call, out) for call in calls])
        if opened is None:
            self._reader = None
            # A call that was complete may still come with the end of the answer. Others were none, after all.
            self._sent = [each for each in self._sent if each.call.closed]
        elif self._notation is not None and (self._reader is None or (calls and not opened.several)):
            self._reader = self._notation.reader(opened, self._tools)
            out += self._read(opened.text)
        return _merged(out), complete

    def _read(self, text: str) -> list[ToolCallDelta]:
        if self._reader is None:
            return []
        out: list[ToolCallDelta] = []
        for call, part in self._reader.feed(text):
            sent = next((each for each in self._sent if each.call is call), None)
            if sent is None:
                self._sent.append(sent := _Sent(call, self._count, call.id or call_id()))
                self._count += 1
                out.append(ToolCallDelta(index=sent.index, id=sent.id, name=call.name, arguments=part))
            else:
                out.append(ToolCallDelta(index=sent.index, arguments=part))
        return out

    def _complete(self, call: ToolCall, out: list[ToolCallDelta]) -> ToolCall:
        """Add the rest of a call to the deltas; return the call with its index and id."""
        sent = self._take(call)
        if sent is None:
            whole = replace(call, index=self._count, id=call.id or call_id())
            self._count += 1
            out.append(ToolCallDelta(index=whole.index, id=whole.id, name=whole.name, arguments=whole.arguments))
            return whole
        arguments = sent.arguments
        if call.arguments.startswith(arguments):
            if rest := call.arguments[len(arguments) :]:
                out.append(ToolCallDelta(index=sent.index, arguments=rest))
        elif not sent.begins(call):
            # The client has these arguments already, and must not get others.
            call = replace(call, arguments=arguments)
        return replace(call, index=sent.index, id=sent.id)

    def _take(self, call: ToolCall) -> _Sent | None:
        """Return what was sent of a complete call. None: nothing was."""
        place = next((at for at, each in enumerate(self._sent) if each.begins(call)), -1)
        if place < 0:
            first = self._sent[0] if self._sent else None
            place = 0 if first is not None and first.call.closed and first.call.name == call.name else -1
        if place < 0:
            return None
        found = self._sent[place]
        # Those before it were no calls.
        del self._sent[: place + 1]
        return found


def _merged(deltas: Sequence[ToolCallDelta]) -> list[ToolCallDelta]:
    """Return deltas with one for each run of deltas of the same call."""
    out: list[ToolCallDelta] = []
    for delta in deltas:
        if out and out[-1].index == delta.index:
            out[-1] = replace(out[-1], arguments=out[-1].arguments + delta.arguments)
        else:
            out.append(delta)
    return out


def whole_calls(calls: Sequence[ToolCall]) -> tuple[ToolCallDelta, ...]:
    """Return one delta for each complete call."""
    return tuple(
        ToolCallDelta(index=call.index, id=call.id, name=call.name, arguments=call.arguments) for call in calls
    )


def _equal(left: str, right: str) -> bool:
    try:
        return bool(json.loads(left) == json.loads(right))
    except (ValueError, RecursionError):
        return False
