"""Reads answers in Harmony, the format of gpt-oss: messages, each with a header that names its channel and recipient.

    answer = message*
    message = "<|start|>" header "<|message|>" BODY "<|end|>"
    header  = ROLE ["to=" TOOL] "<|channel|>" CHANNEL ["to=" TOOL] ["<|constrain|>" FORMAT]

The body of the channel "analysis" is thinking, a body with a recipient holds the arguments of a call, every other body
is content. The first header continues the prompt, which ends with "<|start|>assistant"; the parser puts that in front
of the answer. States: LOOKING for a start, HEADER, BODY. BODY holds back what could be the start of "<|end|>". The
arguments of a call may come in several messages, so the call is read at the end of the answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from puna.backend.thinking import ThinkingMarkers
from puna.errors import BackendFailedError
from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.interface import SteppedParser
from puna.prompt.builtin.notation import json_text
from puna.prompt.markers import overlap
from puna.prompt.parsed import OpenCalls, ParsedDelta

_START: Final = "<|start|>"
_MESSAGE: Final = "<|message|>"
_END: Final = "<|end|>"
_CHANNEL: Final = "<|channel|>"
_CONSTRAIN: Final = "<|constrain|>"
ANALYSIS: Final = f"{_CHANNEL}analysis{_MESSAGE}"
"""Begins thinking."""
NEXT: Final = f"{_END}{_START}assistant"
"""Ends the thinking and begins another message."""
FINAL: Final = f"{NEXT}{_CHANNEL}final{_MESSAGE}"
"""Ends the thinking and begins the content."""
_KEPT_NAMES: Final = frozenset(("browser.open", "browser.search", "browser.find", "python"))


class _State(Enum):
    LOOKING = auto()
    HEADER = auto()
    BODY = auto()


@dataclass(frozen=True, slots=True)
class Header:
    """The author, the channel and the recipient of a message."""

    role: str = ""
    channel: str = ""
    recipient: str = ""

    @property
    def tool(self) -> str:
        """The tool that the message calls; empty: it is no call."""
        return self.recipient if self.channel in ("analysis", "commentary") else ""


def read_header(text: str) -> Header:
    """Read the text between the start of a message and its body. Models order its parts in several ways."""
    # Models leave out the space before this token, which would then be part of a name.
    text = text.replace(_CONSTRAIN, f" {_CONSTRAIN}").strip(SPACE)
    channel = ""
    before, found, after = text.partition(_CHANNEL)
    if found:
        match = re.match(rf"[^{SPACE}]*", after)
        channel = match[0] if match else ""
        text = f"{before} {after[len(channel) :]}".strip(SPACE)
    # The recipient stands as the first word (without a role) or as the second one; "to=" later in the text is not a
    # recipient.
    words = text.split()
    role = words[0] if words else ""
    recipient = next((word[3:] for word in words[:2] if word.startswith("to=")), "")
    return Header("tool" if role.startswith("to=") else role, channel, recipient)


def thinking_markers(ends: tuple[str, ...], begun: str, *, calls: bool) -> ThinkingMarkers:
    """Return the markers of thinking in this format.

    ends: the tokens that end a message. begun: the beginning of the answer, which the prompt holds. calls: whether the
    model may call tools behind its thinking. If it thinks again instead, only the answer is left to it.
    """
    _, found, rest = begun.rpartition(ANALYSIS)
    return ThinkingMarkers(
        starts=(ANALYSIS,),
        open=bool(found) and not any(end in rest for end in ends),
        again=True,
        ends=ends,
        closings=(NEXT, FINAL) if calls else (FINAL,),
    )


class HarmonyParser(SteppedParser):
    """Reads the bodies of messages as thinking, content or the arguments of one call."""

    preserved_tokens: tuple[str, ...] = (_START, _END, _MESSAGE, _CHANNEL, _CONSTRAIN)

    def __init__(self) -> None:
        self._names = ToolNames()
        # The prompt ends with these words, and the first header follows them.
        self._held = f"{_START}assistant"
        self._state = _State.LOOKING
        self._header = Header()
        self._arguments = ""
        self._called = ""
        self._has_tools = False

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Begin where the prompt ended; return the tools under names that the model can write."""
        self._has_tools = bool(tools)
        if last_message is not None and last_message.role == "assistant":
            # The answer goes on in the channel in which the conversation began it.
            if last_message.content:
                self._held = f"{_START}assistant{_CHANNEL}final{_MESSAGE}"
            elif last_message.thinking:
                self._held = f"{_START}assistant{_CHANNEL}analysis{_MESSAGE}"
        return [replace(tool, name=self._names.add(tool.name)) for tool in tools]

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return what begins and ends a message of the channel for thinking."""
        return thinking_markers((_END,), self._held, calls=self._has_tools)

    @property
    def open_calls(self) -> OpenCalls | None:
        """The call whose message the model is writing; None: there is none."""
        if self._state is not _State.BODY or not self._header.tool:
            return None
        return OpenCalls(self._arguments + self._held, self._tool_name())

    def _advance(self, text: str, *, done: bool) -> ParsedDelta:
        """Return what `text` completes, and at the end the call, if there is one. Other text that is held is lost."""
        self._held += text
        content, thinking = "", ""
        while True:
            state = self._state
            body = self._step()
            if body:
                more_content, more_thinking = self._route(body)
                content += more_content
                thinking += more_thinking
            if self._state is state:
                break
        return ParsedDelta(content, thinking, self._call() if done else ())

    def _step(self) -> str:
        """Advance by at most one state; return text of a body."""
        match self._state:
            case _State.LOOKING:
                before, found, rest = self._held.partition(_START)
                if found:
                    self._held, self._state = rest, _State.HEADER
            case _State.HEADER:
                before, found, rest = self._held.partition(_MESSAGE)
                if found:
                    self._held, self._state = rest, _State.BODY
                    self._header = read_header(before)
                    # The last tool counts; the arguments of all messages to tools are joined, as in Ollama.
                    self._called = self._header.tool or self._called
            case _State.BODY:
                before, found, rest = self._held.partition(_END)
                if found:
                    self._held, self._state = rest, _State.LOOKING
                    return before
                # Only the end marker matters within a body: the other tokens are text there.
                sure = self._held[: len(self._held) - overlap(self._held, _END)]
                self._held = self._held[len(sure) :]
                return sure
        return ""

    def _route(self, body: str) -> tuple[str, str]:
        """Return the content and the thinking in a part of the body of the current message."""
        header = self._header
        if header.tool:
            self._arguments += body
        elif header.channel == "analysis":
            return "", body
        else:
            return body, ""
        return "", ""

    def _call(self) -> tuple[ToolCall, ...]:
        if not self._called:
            return ()
        try:
            arguments = json_text.read_arguments(self._arguments)
        except ValueError as error:
            text = f"error parsing tool call: raw='{self._arguments}', err={error}"
            raise BackendFailedError(text) from None
        return (ToolCall(name=self._tool_name(), arguments=gojson.dumps(arguments), index=0),)

    def _tool_name(self) -> str:
        return self._names.original(self._called.removeprefix("functions."))


class ToolNames:
    """Maps names of tools to identifiers, which the format of calls demands, and back."""

    def __init__(self) -> None:
        self._originals: dict[str, str] = {}

    def add(self, name: str) -> str:
        """Return an identifier that no other name has."""
        shown = name
        if name not in _KEPT_NAMES:
            # The format calls functions like members of a TypeScript namespace, so their names must be identifiers.
            shown = "".join(c for c in re.sub(r"[ \-.]", "_", name) if c in "_$" or c.isalpha() or c.isdecimal())
            if shown and shown[0].isdecimal():
                shown = f"_{shown}"
            shown = shown or "unnamed"
        unique, number = shown, 2
        # "get-time" and "get.time" both become "get_time", and the client must get back the name that it sent.
        while unique in self._originals:
            unique = f"{shown}_{number}"
            number += 1
        self._originals[unique] = name
        return unique

    def original(self, shown: str) -> str:
        """Return the name of an identifier; an unknown one is its own name."""
        return self._originals.get(shown, shown)
