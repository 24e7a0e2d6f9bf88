"""Answers of Gemma 4: a thought channel, calls in a brief notation with quoted strings."""

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from puna import gojson
from puna.gotemplate.space import SPACE
from puna.messages import Message, Think, Tool
from puna.prompt.builtin import json_text
from puna.prompt.builtin.interface import Piece
from puna.prompt.thinking import first_of, overlap
from puna.prompt.tool_calls import ParsedCall

_CHANNEL: Final = "<|channel>"
_END_OF_CHANNEL: Final = "<channel|>"
_CALL: Final = "<|tool_call>"
_END_OF_CALL: Final = "<tool_call|>"
_RESPONSE: Final = "<|tool_response>"
_QUOTE: Final = '<|"|>'
_KEY: Final = re.compile(r"([{,]\s*)([^\s\"{}\[\],:]+)\s*:")


class _State(Enum):
    CONTENT = auto()
    THINKING = auto()
    CALL = auto()


class Gemma4Parser:
    """Parts thought, content and calls. Told not to think, thoughts are dropped; so are calls that cannot be read."""

    has_tools = True
    preserved_tokens: tuple[str, ...] = (_CHANNEL, _END_OF_CHANNEL, _CALL, _END_OF_CALL, _RESPONSE, _QUOTE)

    def __init__(self, *, thinks: bool = True) -> None:
        self.has_thinking = thinks
        self._shows = thinks
        self._state = _State.CONTENT
        self._held = ""
        self._count = 0
        self._begun = False

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Learn whether thoughts are wanted."""
        self._shows = self.has_thinking and think is not None and think.on
        return tools

    def add(self, text: str, done: bool) -> Piece:  # noqa: ARG002
        """Return what `text` completes."""
        self._held += text
        thinking, content, calls = "", "", []
        while True:
            state = self._state
            match state:
                case _State.CONTENT:
                    content += self._content()
                case _State.THINKING:
                    thinking += self._thought()
                case _State.CALL:
                    raw, found, rest = self._held.partition(_END_OF_CALL)
                    if found:
                        calls.extend(self._call(raw))
                        self._held, self._state = rest.lstrip(SPACE), _State.CONTENT
            if self._state is state:
                return Piece(content, thinking if self._shows else "", tuple(calls))

    def _content(self) -> str:
        self._held = self._held.replace(_RESPONSE, "")  # what ends a turn of calls
        at, tag = first_of((_CHANNEL, _CALL), self._held)
        if at < 0:
            end = len(self._held) - max(overlap(self._held, tag) for tag in (_CHANNEL, _CALL, _RESPONSE))
            sure = self._held[:end] if end == len(self._held) else self._held[:end].rstrip(SPACE)
            self._held = self._held[len(sure) :]
            return sure
        before = self._held[:at].rstrip(SPACE)
        self._held = self._held[at + len(tag) :]
        self._state = _State.CALL if tag == _CALL else _State.THINKING
        self._begun = False
        return before

    def _thought(self) -> str:
        if not self._begun:
            if "thought\n".startswith(self._held) and self._held != "thought\n":
                return ""
            self._held = self._held.removeprefix("thought\n")
            self._begun = True
        before, found, rest = self._held.partition(_END_OF_CHANNEL)
        if found:
            self._held, self._state = rest.lstrip(SPACE), _State.CONTENT
            return before.rstrip(SPACE)
        end = len(self._held) - overlap(self._held, _END_OF_CHANNEL)
        sure = self._held[:end] if end == len(self._held) else self._held[:end].rstrip(SPACE)
        self._held = self._held[len(sure) :]
        return sure

    def _call(self, raw: str) -> list[ParsedCall]:
        name, found, text = raw.strip(SPACE).removeprefix("call:").partition("{")
        parts = ("{" + text).split(_QUOTE)
        if not found or len(parts) % 2 == 0:
            return []
        # The keys stand between the strings; quote them there, and each string as JSON does.
        json_parts = [gojson.string(part) if i % 2 else part for i, part in enumerate(parts)]
        strings = json_parts[1::2]
        outline = _KEY.sub(lambda m: f"{m[1]}{gojson.string(m[2])}:", '"\x00"'.join(parts[::2]))
        pieces = outline.split('"\x00"')
        text = "".join(piece + (strings[i] if i < len(strings) else "") for i, piece in enumerate(pieces))
        try:
            arguments = json_text.read(text)
        except ValueError:
            return []
        if not isinstance(arguments, dict):
            return []
        self._count += 1
        return [ParsedCall(name.strip(SPACE), gojson.dumps(arguments), self._count - 1)]
