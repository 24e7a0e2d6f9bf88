"""From pieces of text to parts of an answer: thinking, content and tool calls, one delta for a piece as the reference
streams them.

A delta that carries nothing is left out, except where clients of the reference see one: on generate with thinking tags,
and where a piece has log-probabilities while its text waits in the parser of tool calls.
"""

import secrets
import string
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from puna.backend import TextDelta
from puna.messages import ToolCall
from puna.prompt.builtin.interface import Parser
from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.go_template.tool_calls import ToolCallParser
from puna.prompt.jinja.parser import Parsed
from puna.serving.answers import Delta


def call_id() -> str:
    """Return a fresh id for a tool call."""
    return "call_" + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


class Reader(Protocol):
    """Reads one answer."""

    def feed(self, piece: TextDelta) -> Sequence[Delta]:
        """Take a piece; return what it added: usually one delta, none when nothing is to be sent for it."""

    def finish(self) -> Delta:
        """Return what was held back, which travels with the end."""


class NativeParser(Protocol):
    """What puna.prompt.jinja has of several kinds."""

    def feed(self, text: str) -> Parsed:
        """Take a piece."""

    def finish(self) -> Parsed:
        """Return what was held back."""


class PlainReader:
    """Everything is content."""

    def feed(self, piece: TextDelta) -> Sequence[Delta]:
        """Pass it on."""
        return (Delta(text=piece.text, logprobs=piece.logprobs),)

    def finish(self) -> Delta:
        """Nothing is ever held back."""
        return Delta()


class ThinkingReader:
    """Thinking between tags, every piece answered by a delta, be it empty: the way of generate."""

    def __init__(self, thinking: ThinkingParser) -> None:
        self._thinking = thinking

    def feed(self, piece: TextDelta) -> Sequence[Delta]:
        """Split it."""
        thinking, content = self._thinking.feed(piece.text)
        return (Delta(text=content, thinking=thinking, logprobs=piece.logprobs),)

    def finish(self) -> Delta:
        """Text that waits for the rest of a tag is lost, as in the reference."""
        return Delta()


class TaggedReader:
    """Thinking between tags, then tool calls behind a tag: the way of chat with a Go template."""

    def __init__(self, thinking: ThinkingParser | None, tools: ToolCallParser | None) -> None:
        self._thinking = thinking
        self._tools = tools

    def feed(self, piece: TextDelta) -> Sequence[Delta]:
        """Split it; calls come whole, in a delta of their own."""
        content, thinking = piece.text, ""
        if self._thinking is not None:
            thinking, content = self._thinking.feed(content)
            if not thinking and not content:
                return ()
        if self._tools is None:
            return (Delta(text=content, thinking=thinking, logprobs=piece.logprobs),)
        parsed, content = self._tools.feed(content)
        if not parsed:
            delta = Delta(text=content, thinking=thinking, logprobs=piece.logprobs)
            return (delta,) if content or thinking or piece.logprobs else ()
        calls = tuple(ToolCall(name=e.name, arguments=e.arguments, index=e.index, id=call_id()) for e in parsed)
        if content:
            # The reference loses the calls of a piece that has content too; here they follow it.
            return Delta(text=content, thinking=thinking, logprobs=piece.logprobs), Delta(tool_calls=calls)
        return (Delta(thinking=thinking, tool_calls=calls, logprobs=piece.logprobs),)

    def finish(self) -> Delta:
        """Return text that looked like the beginning of a call and was none."""
        return Delta(text=self._tools.done()) if self._tools is not None else Delta()


class BuiltinReader:
    """A parser that the model's configuration names."""

    def __init__(self, parser: Parser, *, with_ids: bool) -> None:
        """`with_ids`: whether calls get ids and come as they are complete; otherwise all come with the end, without."""
        self._parser = parser
        self._with_ids = with_ids
        self._late: list[ToolCall] = []

    def feed(self, piece: TextDelta) -> Sequence[Delta]:
        """Split it."""
        delta = self._add(piece.text, done=False)
        if not (delta.text or delta.thinking or delta.tool_calls or piece.logprobs):
            return ()
        return (replace(delta, logprobs=piece.logprobs),)

    def finish(self) -> Delta:
        """Return what the parser held back."""
        delta = self._add("", done=True)
        return delta if self._with_ids else replace(delta, tool_calls=tuple(self._late))

    def _add(self, text: str, *, done: bool) -> Delta:
        read = self._parser.add(text, done)
        made = tuple(
            ToolCall(name=e.name, arguments=e.arguments, index=e.index, id=call_id() if self._with_ids else "")
            for e in read.calls
        )
        if not self._with_ids:
            self._late += made
            made = ()
        return Delta(text=read.content, thinking=read.thinking, tool_calls=made)


class NativeReader:
    """What the model file's own template tells about its answers; calls come with the end."""

    def __init__(self, parser: NativeParser) -> None:
        self._parser = parser

    def feed(self, piece: TextDelta) -> Sequence[Delta]:
        """Split it."""
        parsed = self._parser.feed(piece.text)
        if not (parsed.content or parsed.thinking or piece.logprobs):
            return ()
        return (Delta(text=parsed.content, thinking=parsed.thinking, logprobs=piece.logprobs),)

    def finish(self) -> Delta:
        """Return what was held back, and all calls."""
        parsed = self._parser.finish()
        return Delta(text=parsed.content, thinking=parsed.thinking, tool_calls=parsed.calls)
