"""The form of gpt-oss: every message has a header with its channel and recipient, then a body.

    <|channel|>analysis<|message|>thoughts<|end|><|start|>assistant<|channel|>final<|message|>answer

Bodies of "analysis" are thinking, of "final" and of "commentary" without a recipient content; what goes to
"functions.NAME" is a call of that tool. The first header continues the prompt's "<|start|>assistant".
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from puna import gojson
from puna.messages import Tool, ToolCall
from puna.prompt.native.calls import new_id
from puna.prompt.native.form import Form
from puna.prompt.native.parser import Parsed, find

FORM: Final = Form(
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


class ChannelParser:
    """Takes the pieces of one answer, in order."""

    form: Final = FORM

    def __init__(self, tools: Sequence[Tool], opened: str = "") -> None:
        """`opened` is the beginning of the answer that already stands in the prompt."""
        self._has_tools = bool(tools)
        self._buffer = opened
        self._channel: str | None = None
        """Of the body that is being read; None: a header is."""
        self._tool = ""
        self._body = ""
        self._calls: list[ToolCall] = []

    def feed(self, text: str) -> Parsed:
        """Take a piece and return what is sure by now."""
        self._buffer += text
        content, thinking = "", ""
        while True:
            if self._channel is None:
                header, found, rest = self._buffer.partition(_MESSAGE)
                if not found:
                    return Parsed(content, thinking)
                self._open(header)
                self._buffer = rest
            end, found = find(self._buffer, _ENDS)
            body, self._buffer = self._buffer[:end], self._buffer[end + len(found) :]
            content, thinking = self._add(body, content, thinking)
            if not found:
                return Parsed(content, thinking)
            content += self._close()

    def _open(self, header: str) -> None:
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        self._channel = channel[1] if channel else "final"
        target = recipient[1] if recipient else ""
        self._tool = target.removeprefix("functions.") if target.startswith("functions.") else ""
        if target and not self._tool:
            self._channel = "unsolicited"

    def _add(self, body: str, content: str, thinking: str) -> tuple[str, str]:
        if self._tool:
            self._body += body
        elif self._channel == "analysis":
            thinking += body
        elif self._channel != "unsolicited":
            content += body
        return content, thinking

    def _close(self) -> str:
        """End a body; return the text of a call that is none."""
        name, text = self._tool, self._body
        self._channel, self._tool, self._body = None, "", ""
        if not name:
            return ""
        try:
            arguments = json.loads(text, parse_int=float)
        except ValueError:
            return text
        if not isinstance(arguments, Mapping) or not self._has_tools:
            return text
        call = ToolCall(name=name, arguments=gojson.dumps(arguments), index=len(self._calls), id=new_id())
        self._calls.append(call)
        return ""

    def finish(self) -> Parsed:
        """Return what was held back, and the calls."""
        rest, self._buffer = self._buffer, ""
        content, thinking = "", ""
        if self._channel is not None:
            content, thinking = self._add(rest, "", "")
            content += self._close()
        return Parsed(content, thinking, tuple(self._calls))
