"""DeepSeek 3.1 and Cogito: tags in full-width bars, calls with JSON arguments, perhaps with thinking."""
# ruff: noqa: RUF001 - the bars are the family's own

from collections.abc import Sequence
from typing import Final

from puna.go import json as gojson
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.notation import markup

BOS: Final = "<｜begin▁of▁sentence｜>"
_EOS: Final = "<｜end▁of▁sentence｜>"
_USER: Final = "<｜User｜>"
_ASSISTANT: Final = "<｜Assistant｜>"
CALLS: Final = "<｜tool▁calls▁begin｜>"
END_OF_CALLS: Final = "<｜tool▁calls▁end｜>"
CALL: Final = "<｜tool▁call▁begin｜>"
END_OF_CALL: Final = "<｜tool▁call▁end｜>"
SEPARATOR: Final = "<｜tool▁sep｜>"
_OUTPUT: Final = "<｜tool▁output▁begin｜>"
_END_OF_OUTPUT: Final = "<｜tool▁output▁end｜>"

_TOOLS: Final = "\n\n## Tools\nYou have access to the following tools:\n"
_INSTRUCTIONS: Final = f"""
IMPORTANT: ALWAYS adhere to this exact format for tool use:
{CALLS}{CALL}tool_call_name{SEPARATOR}tool_call_arguments{END_OF_CALL}{{{{additional_tool_calls}}}}{END_OF_CALLS}

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
"""


class DeepSeekRenderer:
    """Renders for DeepSeek 3.1."""

    bos = BOS

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt; all system messages stand at its head."""
        thinks = think is not None and think.on
        out = [BOS, "\n\n".join(m.content for m in messages if m.role == "system"), _tools(tools)]
        question = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
        open_ = False
        for i, message in enumerate(messages):
            match message.role:
                case "user":
                    out.append(_USER + message.content)
                    open_ = True
                case "assistant":
                    thought = thinks and i > question and bool(message.thinking)
                    out.append(_answer(message, open_, thought))
                    open_ = False
                case "tool":
                    out.append(_OUTPUT + message.content + _END_OF_OUTPUT)
                    open_ = False
        if open_:
            out.append(_ASSISTANT + ("<think>" if thinks else "</think>"))
        return "".join(out)


def _tools(tools: Sequence[Tool]) -> str:
    if not tools:
        return ""
    out = _TOOLS
    for tool in tools:
        parameters = gojson.dumps(tool_schema.reduced(tool)["function"]["parameters"])
        out += f"\n### {tool.name}\nDescription: {tool.description}\n\nParameters: {parameters}\n"
    return out + _INSTRUCTIONS


def _answer(message: Message, first: bool, thought: bool) -> str:
    """`first`: it follows a user's message; `thought`: show that it thought."""
    content = message.content
    if message.tool_calls:
        calls = "".join(f"{CALL}{c.name}{SEPARATOR}{_arguments(c)}{END_OF_CALL}" for c in message.tool_calls)
        return (_ASSISTANT + "</think>" if first else "") + content + CALLS + calls + END_OF_CALLS + _EOS
    if first and "</think>" in content:
        content = content.partition("</think>")[2]
    return (_ASSISTANT + ("<think>" if thought else "</think>") if first else "") + content + _EOS


def _arguments(call: ToolCall) -> str:
    return gojson.dumps(markup.arguments(call.arguments))


_DEFAULT_SYSTEM: Final = (
    "You are Cogito, an AI assistant created by Deep Cogito, which is an AI research lab based in San Francisco."
)


class CogitoRenderer:
    """Renders for Cogito."""

    bos = BOS

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt; of system messages only the very first is shown."""
        thinks = think is not None and think.on
        out = [BOS, "Enable deep thinking subroutine.\n\n" if thinks else "", _DEFAULT_SYSTEM]
        if messages and messages[0].role == "system" and messages[0].content:
            out.append("\n\n" + messages[0].content + ("\n\n" if thinks else ""))
        if tools:
            listed = "".join(f"```json\n{_indented(tool_schema.reduced(tool))}\n```\n" for tool in tools)
            out.append(f"\nYou have the following functions available:\n{listed}")
        outputs = False
        for message in messages:
            if outputs and message.role != "tool":
                out.append("<｜tool▁outputs▁end｜>")
                outputs = False
            match message.role:
                case "user":
                    out.append(_USER + message.content + _ASSISTANT)
                case "assistant":
                    out.append(message.content + _cogito_calls(message.tool_calls) + _EOS)
                case "tool":
                    out.append("\n" if outputs else "<｜tool▁outputs▁begin｜>")
                    out.append(_OUTPUT + message.content + _END_OF_OUTPUT)
                    outputs = True
        out.append("<｜tool▁outputs▁end｜>" if outputs else "")
        if next((m.role for m in reversed(messages) if m.role in ("user", "assistant", "tool")), "") != "user":
            out.append(_ASSISTANT)
        return "".join(out) + ("<think>\n" if thinks else "")


def _cogito_calls(calls: Sequence[ToolCall]) -> str:
    if not calls:
        return ""
    each = (f"{CALL}function{SEPARATOR}{c.name}\n```json\n{_arguments(c)}\n```{END_OF_CALL}" for c in calls)
    return CALLS + "\n".join(each) + END_OF_CALLS


def _indented(value: object, margin: str = "") -> str:
    """Encode as JSON with a line for each member."""
    if not value or not isinstance(value, dict | list):
        return gojson.dumps(value)
    inner = margin + "    "
    if isinstance(value, dict):
        lines = [f"{inner}{gojson.dumps(key)}: {_indented(each, inner)}" for key, each in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    return "[\n" + ",\n".join(inner + _indented(each, inner) for each in value) + f"\n{margin}]"
