"""Writes prompts for Qwen3-Coder: ChatML, tools and calls as XML."""

from collections.abc import Mapping, Sequence
from typing import Any

from puna.go import json as gojson
from puna.go.template.formatting import text as go_text
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.format_texts import qwen3_coder as format_text
from puna.prompt.builtin.notation import markup


class Qwen3CoderRenderer:
    """Writes prompts for Qwen3-Coder."""

    bos = ""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:  # noqa: ARG002
        """Return the prompt. Only the first system message with content counts. Media are not shown."""
        system = next((m.content for m in messages if m.role == "system" and m.content), "")
        rest = [message for message in messages if message.role != "system"]
        out: list[str] = []
        if system or tools:
            out.append(f"<|im_start|>system\n{system or format_text.DEFAULT_SYSTEM}{_tools(tools)}<|im_end|>\n")
        for i, message in enumerate(rest):
            last = i == len(rest) - 1
            if message.role == "assistant" and message.tool_calls:
                before = f"{message.content}\n" if message.content else ""
                calls = "".join(f"\n{call_text(call)}" for call in message.tool_calls)
                out.append(f"<|im_start|>assistant\n{before}{calls}<|im_end|>\n")
            elif message.role == "tool":
                out.append(markup.chatml_result(rest, i, message.content))
            else:
                # An answer at the end stays open, for the model to go on with.
                closes = not (last and message.role == "assistant")
                out.append(f"<|im_start|>{message.role}\n{message.content}{'<|im_end|>' + chr(10) if closes else ''}")
        if rest and rest[-1].role != "assistant":
            out.append("<|im_start|>assistant\n")
        return "".join(out)


def call_text(call: ToolCall) -> str:
    """Return a call as these models write it."""
    parameters = "".join(
        f"\n<parameter={name}>\n{_value(value)}\n</parameter>"
        for name, value in markup.arguments(call.arguments).items()
    )
    return f"<tool_call>\n<function={call.name}>{parameters}\n</function>\n</tool_call>"


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping | list):
        # Go prints inner objects from maps, which have sorted keys.
        return gojson.dumps(value, sort_keys=True)
    return go_text(value)


def _tools(tools: Sequence[Tool]) -> str:
    if not tools:
        return ""
    listed = "".join(map(_tool, tools))
    return f"\n\n{format_text.TOOLS}{listed}\n</tools>\n\n{format_text.CALL_INSTRUCTIONS}"


def _tool(tool: Tool) -> str:
    function = tool_schema.reduced(tool)["function"]
    out = f"\n<function>\n<name>{tool.name}</name>"
    if tool.description:
        out += f"\n<description>{tool.description}</description>"
    out += "\n<parameters>"
    for name, kept in (function["parameters"]["properties"] or {}).items():
        out += f"\n<parameter>\n<name>{name}</name>{_members(kept)}\n</parameter>"
    for key in ("$defs", "items", "required"):
        if key in function["parameters"]:
            out += f"\n<{key}>{_value(function['parameters'][key])}</{key}>"
    return out + "\n</parameters>\n</function>"


def _members(kept: Mapping[str, Any]) -> str:
    """Return the members of a property: type and description first, the rest as JSON."""
    out = ""
    if "type" in kept:
        out += f"\n<type>{kept['type'] if isinstance(kept['type'], str) else gojson.dumps(kept['type'])}</type>"
    if "description" in kept:
        out += f"\n<description>{kept['description']}</description>"
    for key in kept:
        if key not in ("type", "description"):
            out += f"\n<{key}>{_value(kept[key])}</{key}>"
    return out
