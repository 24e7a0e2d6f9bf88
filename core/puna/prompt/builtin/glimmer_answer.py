"""Reads answers of Glimmer: messages whose headers name a recipient, with calls in markup that resembles XML.

    answer  = message*
    message = ["<|start|>assistant"] [" to=" RECIPIENT] "<|message|>" BODY ("<|eom|>" | "<|eot|>")

The body for "self" is thinking, the body for a tool is a call, every other body is content. The first header continues
the prompt. States: HEADER until `<|message|>`; UNDECIDED in a message that is a call only if its body begins like one;
THINKING and CONTENT pass text on, and hold back what could be the start of the end or of the next message; CALL waits
for the whole body. Models forget the end of a message, so a body also ends where a header to a known recipient follows.
"""

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from puna.backend.thinking import ThinkingMarkers
from puna.errors import BackendFailedError
from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.interface import SteppedParser
from puna.prompt.builtin.qwen3_coder_answer import typed_exactly
from puna.prompt.markers import first_of, overlap
from puna.prompt.parsed import OpenCalls, ParsedDelta

START: Final = "<|start|>"
MESSAGE: Final = "<|message|>"
END_OF_MESSAGE: Final = "<|eom|>"
END_OF_TURN: Final = "<|eot|>"
CALLS: Final = "<atem:function_calls>"
END_OF_CALLS: Final = "</atem:function_calls>"
_ENDS: Final = (END_OF_MESSAGE, END_OF_TURN)
_RECIPIENT: Final = re.compile(r"assistant(?:\s+to=(.*))?", re.DOTALL)
_INVOKE: Final = '<atem:invoke name="'
_END_OF_INVOKE: Final = "</atem:invoke>"
_PARAMETER: Final = re.compile(r'\s*<atem:parameter name="([^"]*)">(.*?)</atem:parameter>', re.DOTALL)


class _State(Enum):
    HEADER = auto()
    UNDECIDED = auto()
    """In a message whose recipient does not decide whether it is a call."""
    THINKING = auto()
    CONTENT = auto()
    CALL = auto()


class GlimmerParser(SteppedParser):
    """Reads thinking, content and calls. Thoughts are dropped where the client turned thinking off."""

    preserved_tokens: tuple[str, ...] = (START, MESSAGE, END_OF_MESSAGE, END_OF_TURN)

    def __init__(self, *, strict: bool = True) -> None:
        """strict: a call that cannot be read is an error, as in Ollama's builtin parser; otherwise it is content."""
        self._strict = strict
        self._tools: Sequence[Tool] = ()
        self._shows = False
        self._state = _State.HEADER
        self._recipient = ""
        self._held = ""
        self._count = 0

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Take the tools, which are possible recipients, and whether thoughts are shown."""
        self._tools = tools
        self._shows = think is None or think.on
        return tools

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return what begins and ends a message to "self"."""
        ends = f"{END_OF_MESSAGE}{START}assistant"
        answers = f"{ends} to=user{MESSAGE}"
        return ThinkingMarkers(
            starts=(f"to=self{MESSAGE}",),
            again=True,
            ends=(*_ENDS, START),
            # With tools the model may go on with a call. If it thinks again, only the answer is left to it.
            closings=(ends, answers) if self._tools else (answers,),
        )

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        return OpenCalls(self._held) if self._state is _State.CALL else None

    def _advance(self, text: str, *, done: bool) -> ParsedDelta:
        """Return what `text` completes. At the end a header without a body becomes content.

        Raises BackendFailedError for a call that cannot be read.
        """
        self._held += text
        thinking, content = "", ""
        calls: list[ToolCall] = []
        while True:
            state, length = self._state, len(self._held)
            match state:
                case _State.HEADER:
                    content += self._header(done)
                case _State.UNDECIDED:
                    self._decide(done)
                case _State.CALL:
                    read = self._call(done)
                    content += read.content
                    calls.extend(read.calls)
                case _State.THINKING:
                    thinking += self._body(done)
                case _State.CONTENT:
                    content += self._body(done)
            if self._state is state and len(self._held) == length:
                return ParsedDelta(content, thinking if self._shows else "", tuple(calls))

    def _header(self, done: bool) -> str:
        header, found, rest = self._held.partition(MESSAGE)
        if not found:
            # An answer may end within its header. The text then goes to the client as content, so that nothing is lost.
            unparsed = self._held.removeprefix(f"{START}assistant") if done else ""
            self._held = "" if done else self._held
            return unparsed
        self._held = rest
        self._address(
            _recipient(header.removeprefix(START) if header.startswith(START) else f"assistant{header}") or ""
        )
        return ""

    def _address(self, recipient: str) -> None:
        """Enter the state for the body of a message to `recipient`."""
        self._recipient = recipient
        if recipient == "self":
            self._state = _State.THINKING
        elif not self._tools:
            self._state = _State.CONTENT
        else:
            # An unknown recipient may be the name of a tool that the model misspelled; the body decides.
            self._state = _State.CALL if self._tool(recipient) else _State.UNDECIDED

    def _decide(self, done: bool) -> None:
        trimmed = self._held.lstrip(SPACE)
        if trimmed.startswith(CALLS):
            self._state = _State.CALL
        elif done or not CALLS.startswith(trimmed):
            self._state = _State.CONTENT

    def _end(self) -> tuple[str, bool]:
        """Pass the end of the message; return the text before it and whether the end was there."""
        at, tag = first_of(_ENDS, self._held)
        if not tag:
            return self._held, False
        before, self._held, self._state = self._held[:at], self._held[at + len(tag) :], _State.HEADER
        return before, True

    def _body(self, done: bool) -> str:
        """Take the certain part of a body, which also ends where the header of the next message begins."""
        # A start before any end: the model forgot the end, unless the header behind it is none.
        before, started, after = self._held.partition(START)
        if started and not any(tag in before for tag in _ENDS):
            header, found, rest = after.partition(MESSAGE)
            # The header may still be incomplete.
            likely = header.startswith("assistant") or "assistant".startswith(header)
            if not found and likely and not done and not any(tag in after for tag in _ENDS):
                self._held = started + after
                return before
            recipient = _recipient(header)
            if found and recipient and (recipient in ("self", "user") or self._tool(recipient)):
                self._held = rest
                self._address(recipient)
                return before
            self._held = rest
            return before + started + header + found
        before, ended = self._end()
        if ended:
            return before
        # START is held back too, since a forgotten end shows only in the next header.
        held = 0 if done else max(overlap(before, tag) for tag in (*_ENDS, START))
        self._held = before[len(before) - held :]
        return before[: len(before) - held]

    def _call(self, done: bool) -> ParsedDelta:
        """Read the body of a call. It is content if neither the recipient nor the call names a known tool."""
        body, ended = self._end()
        if not ended and not (done and body):
            return ParsedDelta()
        self._held, self._state = self._held if ended else "", _State.HEADER
        expected = self._recipient if self._tool(self._recipient) else ""
        try:
            name, parameters = read_call(body.strip(SPACE))
        except ValueError as error:
            # The header has named a tool, so the body was meant as a call.
            if expected and self._strict:
                raise BackendFailedError(f"parse Glimmer call to {expected}: {error}") from None
            return ParsedDelta(body)
        # The call may repeat the namespace of the tool.
        called = name.removeprefix(f"{expected}.") if expected else name
        if expected and called != expected and self._strict:
            invoked = f"does not match ATEM invoke {gojson.quote(name)}"
            raise BackendFailedError(f"Glimmer recipient {gojson.quote(expected)} {invoked}")
        tool = self._tool(called)
        if tool is None:
            return ParsedDelta(body)
        properties = tool_schema.properties_of(called, self._tools)
        arguments = {
            key: typed_exactly(value, tool_schema.types_of(properties.get(key, {}))) for key, value in parameters
        }
        self._count += 1
        return ParsedDelta(calls=(ToolCall(name=called, arguments=gojson.dumps(arguments), index=self._count - 1),))

    def _tool(self, name: str) -> Tool | None:
        return next((tool for tool in self._tools if tool.name == name), None)


def _recipient(header: str) -> str | None:
    """Return the recipient in a header; empty: it names none; None: the header is not the assistant's."""
    match = _RECIPIENT.fullmatch(header.strip(SPACE))
    return (match[1] or "").strip(SPACE) if match else None


def read_call(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the name and the parameters of a call. Raises ValueError with Ollama's text."""
    if not (text.startswith(CALLS) and text.endswith(END_OF_CALLS)):
        raise ValueError("missing ATEM function_calls wrapper")
    text = text.removeprefix(CALLS).removesuffix(END_OF_CALLS).strip(SPACE)
    if not (text.startswith(_INVOKE) and text.endswith(_END_OF_INVOKE)):
        raise ValueError("missing ATEM invoke wrapper")
    name, found, text = text.removeprefix(_INVOKE).removesuffix(_END_OF_INVOKE).partition('">')
    if not found or '"' in name:
        raise ValueError("malformed ATEM invoke name")
    parameters = []
    while text.strip(SPACE):
        match = _PARAMETER.match(text)
        if match is None:
            raise ValueError("malformed ATEM parameter")
        parameters.append((match[1], match[2]))
        text = text[match.end() :]
    return name, parameters
