"""Reads answers of gpt-oss where the template of the model file is in use: messages with a header and a body.

    <|channel|>analysis<|message|>thoughts<|end|><|start|>assistant<|channel|>final<|message|>answer

A body of the channel "analysis" is thinking, every other body is content. A body for the recipient "functions.NAME", or
for the bare name of a tool that the client offers, is a call of that tool if it is a JSON object. The first header
continues the prompt, which ends with "<|start|>assistant".

Models write headers that the format does not allow. Of several channels the last one counts. A recipient that is no
tool changes nothing. Text that never gets a header is content. So no body is lost.

There are two states: in a header, where everything is kept until `<|message|>`, and in a body, which passes on all but
what could be the start of an end marker. puna.prompt.builtin.harmony reads the same format as Ollama's builtin parser
does, which differs in what it does with such headers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from puna.backend.thinking import ThinkingMarkers
from puna.go import json as gojson
from puna.messages import Tool, ToolCall
from puna.prompt.builtin.harmony import thinking_markers
from puna.prompt.jinja.calls import new_id
from puna.prompt.layout import OutputLayout
from puna.prompt.markers import first_or_certain
from puna.prompt.parsed import OpenCalls, ParsedDelta

LAYOUT: Final = OutputLayout(
    name="gpt-oss",
    thinks=True,
    thinking_start="<|channel|>analysis<|message|>",
    thinking_end="<|end|>",
    before_prefill="<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>",
    preserved_tokens=("<|channel|>", "<|constrain|>", "<|message|>", "<|start|>", "<|end|>"),
)
_MESSAGE: Final = "<|message|>"
_ENDS: Final = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_CHANNEL: Final = re.compile(r"<\|channel\|>(\w+)")
_RECIPIENT: Final = re.compile(r"to=([^\s<]+)")
_HEADER_PART: Final = re.compile(
    r"(?:\A|<\|start\|>)\s*(?:assistant\b)?|<\|channel\|>\s*\w*|<\|constrain\|>\s*\w*|\bto=\S+|<\|[^|>]*\Z"
)


class ChannelParser:
    """Reads one answer."""

    layout: Final = LAYOUT

    def __init__(self, tools: Sequence[Tool], answer_prefix: str = "") -> None:
        """answer_prefix: the beginning of the answer that the prompt already holds."""
        self._tools = {tool.name for tool in tools}
        self._buffer = answer_prefix
        self._channel: str | None = None
        """The channel of the current body; None: the text is in a header."""
        self._tool = ""
        self._body = ""
        self._calls: list[ToolCall] = []

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return what begins and ends a message of the channel for thinking."""
        return thinking_markers(_ENDS, self._buffer, calls=bool(self._tools))

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes."""
        self._buffer += text
        content, thinking = "", ""
        while True:
            if self._channel is None:
                # A header decides where its body goes, so nothing passes before it is complete.
                header, found, rest = self._buffer.partition(_MESSAGE)
                if not found:
                    return ParsedDelta(content, thinking)
                self._open(header)
                self._buffer = rest
            # Any of these special tokens ends a body, so that a missing `<|end|>` loses nothing.
            end, found = first_or_certain(_ENDS, self._buffer)
            body, self._buffer = self._buffer[:end], self._buffer[end + len(found) :]
            content, thinking = self._add(body, content, thinking)
            if not found:
                return ParsedDelta(content, thinking)
            content += self._close()

    def _open(self, header: str) -> None:
        channels = _CHANNEL.findall(header)
        self._channel = channels[-1] if channels else "final"
        role, *parts = header.split("<|channel|>")
        # A recipient stands before the first channel or behind the last one. If the last channel is "final", a
        # recipient between the channels does not count.
        places = [role, *parts[-1:]] if self._channel == "final" else [header]
        target = next((found[1] for place in places if (found := _RECIPIENT.search(place))), "")
        is_tool = target.startswith("functions.") or target in self._tools
        self._tool = target.removeprefix("functions.") if is_tool else ""

    def _add(self, body: str, content: str, thinking: str) -> tuple[str, str]:
        if self._tool:
            self._body += body
        elif self._channel == "analysis":
            thinking += body
        else:
            content += body
        return content, thinking

    def _close(self) -> str:
        """End a body. Return its text if it was addressed to a tool and makes no call, otherwise ""."""
        name, text = self._tool, self._body
        self._channel, self._tool, self._body = None, "", ""
        if not name:
            return ""
        try:
            arguments = json.loads(text, parse_int=float)
        except ValueError:
            return text
        # Without tools the client cannot read calls.
        if not isinstance(arguments, Mapping) or not self._tools:
            return text
        call = ToolCall(name=name, arguments=gojson.dumps(arguments), index=len(self._calls), id=new_id())
        self._calls.append(call)
        return ""

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        # Without tools the client cannot read calls.
        is_open = self._tool and self._tools
        return OpenCalls(self._body + self._buffer, self._tool) if is_open else None

    def finish(self) -> ParsedDelta:
        """Return what was held back, and all calls."""
        rest, self._buffer = self._buffer, ""
        content, thinking = "", ""
        if self._channel is not None:
            content, thinking = self._add(rest, "", "")
            content += self._close()
        else:
            # The answer ended within a header. Text in it that is no part of a header was meant as content.
            content = _HEADER_PART.sub("", rest).strip()
        return ParsedDelta(content, thinking, tuple(self._calls))
