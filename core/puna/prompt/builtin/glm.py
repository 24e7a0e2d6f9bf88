"""Writes prompts for GLM 4.7 and GLM-OCR: roles without end markers, tools as JSON, calls as keys and values."""

from collections.abc import Sequence
from typing import Final

from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.format_texts import glm as format_text
from puna.prompt.builtin.notation import markup

_BEGINNING: Final = "[gMASK]<sop>"


class GlmRenderer:
    """Writes prompts for GLM 4.7."""

    bos = ""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""
        out = [_BEGINNING, _head(tools)]
        for i, message in enumerate(messages):
            match message.role:
                case "user" | "system":
                    out.append(f"<|{message.role}|>{message.content}")
                case "assistant":
                    thinking = f"<think>{message.thinking}" if message.thinking else ""
                    out.append(f"<|assistant|>{thinking}</think>{message.content}")
                    out.extend(map(_call, message.tool_calls))
                case "tool":
                    out.append("" if i and messages[i - 1].role == "tool" else "<|observation|>")
                    out.append(f"<tool_response>{message.content}</tool_response>")
        thinks = think is None or think.on
        return "".join(out) + "<|assistant|>" + ("<think>" if thinks else "</think>")


class GlmOcrRenderer:
    """Writes prompts for GLM-OCR: the format of GLM 4.7 with line ends and images."""

    bos = ""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""
        marks = markup.MediaMarkers()
        out = [_BEGINNING, _head(tools)]
        for i, message in enumerate(messages):
            content = marks.content(message) if message.role in ("user", "tool") else message.content
            match message.role:
                case "user":
                    out.append(f"<|user|>\n{content}")
                case "system":
                    out.append(f"<|system|>\n{content}\n")
                case "assistant":
                    out.append(f"<|assistant|>\n<think>{message.thinking.strip(SPACE)}</think>\n")
                    out.append(f"{content.strip(SPACE)}\n" if content.strip(SPACE) else "")
                    out.extend(_call(call) + "\n" for call in message.tool_calls)
                case "tool":
                    out.append("\n" if i and messages[i - 1].role == "tool" else "<|observation|>\n")
                    out.append(f"<tool_response>\n{content}\n</tool_response>\n")
        return "".join(out) + "<|assistant|>\n" + ("<think></think>\n" if think is not None and not think.on else "")


def _head(tools: Sequence[Tool]) -> str:
    if not tools:
        return ""
    return format_text.TOOLS.format(signatures="\n".join(markup.spaced(tool_schema.reduced(tool)) for tool in tools))


def _call(call: ToolCall) -> str:
    pairs = "".join(
        f"<arg_key>{name}</arg_key><arg_value>{value if isinstance(value, str) else gojson.dumps(value)}</arg_value>"
        for name, value in markup.arguments(call.arguments).items()
    )
    return f"<tool_call>{call.name}{pairs}</tool_call>"
