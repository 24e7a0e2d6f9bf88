"""Reads answers of LFM2: thinking for some models, then content and blocks of calls in Python's notation.

    answer = ["<think>" THINKING "</think>"] (CONTENT | "<|tool_call_start|>" calls "<|tool_call_end|>")*
    calls  = ["["] call ("," call)* ["]"]
    call   = NAME "(" [KEY "=" VALUE ("," KEY "=" VALUE)*] ")"
    VALUE  = quoted TEXT | NUMBER | true | false | null, also in Python's words | JSON object or array | bare TEXT

States: OPENING until it is known whether the answer begins with `<think>`; BLANK_THINKING and BLANK drop white space
before thinking and content; THINKING, CONTENT and CALLS. Only THINKING holds text back. The tokens around calls are
special tokens, so they come whole. A block that cannot be read keeps the parser in CALLS: nothing more comes out of the
answer, as in Ollama. A quoted text is taken as it stands, with its backslashes.
"""

import json
import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from puna.backend.thinking import ThinkingMarkers
from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.interface import goes_on
from puna.prompt.builtin.notation.literals import at_commas, number
from puna.prompt.markers import overlap
from puna.prompt.parsed import ParsedDelta

_BEGINNING: Final = "<think>"
_END_OF_THINKING: Final = "</think>"
_CALLS: Final = "<|tool_call_start|>"
_END_OF_CALLS: Final = "<|tool_call_end|>"
_WORDS: Final = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_JSON_WORDS: Final = {"True": "true", "False": "false", "None": "null"}
_QUOTED: Final = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_PYTHON: Final = re.compile(rf"{_QUOTED.pattern}|\b(?:True|False|None)\b", re.DOTALL)


class _State(Enum):
    OPENING = auto()
    THINKING = auto()
    BLANK_THINKING = auto()
    BLANK = auto()
    CONTENT = auto()
    CALLS = auto()


class Lfm2Parser:
    """Reads thinking, content and calls. Nothing comes out after calls that cannot be read."""

    preserved_tokens: tuple[str, ...] = (_BEGINNING, _END_OF_THINKING, _CALLS, _END_OF_CALLS)

    def __init__(self, *, thinks: bool) -> None:
        self.has_thinking = thinks
        self._state = _State.CONTENT
        self._held = ""
        self._count = 0

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:
        """Expect thinking if the model may think and the conversation did not begin the answer."""
        continues = goes_on(last_message)
        if self.has_thinking and not continues and (think is None or think.on):
            self._state = _State.OPENING
        return tools

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return the tags around the thinking with which an answer may begin."""
        if self._state is not _State.OPENING:
            return None
        return ThinkingMarkers(starts=(_BEGINNING,), ends=(_END_OF_THINKING,), closings=(f"{_END_OF_THINKING}\n\n",))

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes."""
        self._held += text
        thinking, content, calls = "", "", []
        while True:
            state = self._state
            match state:
                case _State.OPENING:
                    self._open()
                case _State.THINKING:
                    thinking += self._thought()
                # White space may arrive in several texts. The state lasts until another character comes.
                case _State.BLANK | _State.BLANK_THINKING:
                    self._held = self._held.lstrip(SPACE)
                    if self._held:
                        self._state = _State.CONTENT if state is _State.BLANK else _State.THINKING
                case _State.CONTENT:
                    before, found, rest = self._held.partition(_CALLS)
                    # The token of calls is a special token and comes whole, so nothing needs to be held back.
                    content += before.rstrip(SPACE) if found else before
                    self._held, self._state = rest, _State.CALLS if found else state
                case _State.CALLS:
                    calls.extend(self._calls())
            if self._state is state:
                return ParsedDelta(content, thinking, tuple(calls))

    def finish(self) -> ParsedDelta:
        """Return nothing: text that is held back at the end is lost, as in Ollama."""
        return self.feed("")

    def _open(self) -> None:
        trimmed = self._held.lstrip(SPACE)
        if trimmed.startswith(_BEGINNING):
            self._held, self._state = trimmed.removeprefix(_BEGINNING), _State.BLANK_THINKING
        elif not _BEGINNING.startswith(trimmed):
            self._state = _State.BLANK

    def _thought(self) -> str:
        before, found, rest = self._held.partition(_END_OF_THINKING)
        if found:
            self._held, self._state = rest, _State.BLANK
            return before.rstrip(SPACE)
        sure = self._held[: len(self._held) - overlap(self._held, _END_OF_THINKING)].rstrip(SPACE)
        self._held = self._held[len(sure) :]
        return sure

    def _calls(self) -> list[ToolCall]:
        block, found, rest = self._held.partition(_END_OF_CALLS)
        if not found:
            return []
        try:
            read = read_calls(block)
        except ValueError:
            return []
        self._held, self._state = rest.lstrip(SPACE), _State.CONTENT
        begin = self._count
        self._count += len(read)
        return [
            ToolCall(name=name, arguments=gojson.dumps(arguments), index=begin + i)
            for i, (name, arguments) in enumerate(read)
        ]


def read_calls(text: str) -> list[tuple[str, dict[str, object]]]:
    """Return the names and arguments of calls. Raises ValueError if the text is anything else."""
    rest = text.strip(SPACE)
    # Models leave out the brackets around a single call.
    if rest.startswith("[") and rest.endswith("]"):
        rest = rest[1:-1]
    calls = []
    while rest := rest.lstrip(SPACE + ","):
        name, found, after = rest.partition("(")
        end = _closing(after)
        if not found or end < 0 or not name.strip(SPACE):
            raise ValueError("no call")
        calls.append((name.strip(SPACE), _arguments(after[:end])))
        rest = after[end + 1 :]
    if not calls:
        raise ValueError("no call")
    return calls


def _closing(text: str) -> int:
    """Return the place of the parenthesis that closes the one before `text`; -1 if there is none."""
    depth, quote, at = 1, "", 0
    while at < len(text):
        char = text[at]
        if quote:
            # An escaped quote does not end the text.
            at += char == "\\"
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            depth += (char == "(") - (char == ")")
            if not depth:
                return at
        at += 1
    return -1


def _arguments(text: str) -> dict[str, object]:
    parts = [part.strip(SPACE) for part in at_commas(text)]
    # Ollama refuses a missing value only at the end; elsewhere it is an empty text.
    if parts[-1].endswith("=") and parts[-1].index("=") == len(parts[-1]) - 1:
        raise ValueError("no value at the end")
    arguments = {}
    for part in filter(None, parts):
        name, found, value = part.partition("=")
        if not found or not name.strip(SPACE):
            raise ValueError("no name of an argument")
        arguments[name.strip(SPACE)] = _value(value.strip(SPACE))
    return arguments


def _value(text: str) -> object:
    if text[:1] in ("'", '"'):
        if not _QUOTED.fullmatch(text):
            raise ValueError("no text")
        return text[1:-1]
    if text in _WORDS:
        return _WORDS[text]
    if (read := number(text)) is not None:
        return read
    if text.startswith(("[", "{")):
        try:
            # Neither JSON nor Python after the rewriting: the model meant a text.
            return json.loads(_as_json(text), parse_int=float)
        except ValueError:
            return text
    return text


def _as_json(text: str) -> str:
    """Return a literal of Python as JSON: its words and its texts in single quotes are rewritten."""
    # Texts are matched together with words, so that "None" within a text stays.
    return _PYTHON.sub(lambda match: _JSON_WORDS.get(match[0]) or _double_quoted(match[0]), text)


def _double_quoted(text: str) -> str:
    if text[0] == '"':
        return text
    return (
        '"' + re.sub(r'\\.|"', lambda match: '\\"' if match[0] == '"' else match[0], text[1:-1], flags=re.DOTALL) + '"'
    )
