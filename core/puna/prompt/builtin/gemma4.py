"""Gemma 4: turns, a thought channel, tools and calls in a brief notation with quoted strings."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from puna.go.space import SPACE
from puna.go.template.formatting import text as go_text
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.notation import markup

_BOS: Final = "<bos>"
_QUOTE: Final = '<|"|>'


_SIZE: Final = re.compile(r"(?<![a-z0-9.])(e?)([0-9]+(?:\.[0-9]+)?)b(?![a-z0-9])")
_LARGE: Final = 12e9


def variant(model: str, parameters: Callable[[], int]) -> str:
    """Return the renderer that "gemma4" means for a model: by the size that its name tells, else by its parameters."""
    found = _SIZE.search(model.lower())
    size = float(found[2]) * 1e9 if found else parameters()
    return "gemma4-large" if size >= _LARGE and not (found and found[1]) else "gemma4-small"


class Gemma4Renderer:
    """Renders for Gemma 4; `empty_thought`: the large models get an empty thought when they shall not think."""

    bos = _BOS

    def __init__(self, *, empty_thought: bool) -> None:
        self._empty_thought = empty_thought

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""
        thinks = think is not None and think.on
        marks = markup.MediaMarks()
        rest = list(messages)
        head = None
        if rest and rest[0].role in ("system", "developer"):
            head = rest.pop(0).content.strip(SPACE)
        out = [_BOS]
        if head is not None or thinks or tools:
            declared = "".join(map(_declaration, tools))
            out.append(f"<|turn>system\n{'<|think|>' + chr(10) if thinks else ''}{head or ''}{declared}<turn|>\n")
        question = max((i for i, m in enumerate(rest) if m.role == "user"), default=-1)
        ends = ""
        before = ""
        for i, message in enumerate(rest):
            if message.role == "tool":
                continue
            role = "model" if message.role == "assistant" else message.role
            if role != "model" or before != "model":
                out.append(f"<|turn>{role}\n")
            before = role
            if message.thinking and role == "model" and i > question:
                out.append(f"<|channel>thought\n{message.thinking}\n<channel|>")
            responses = _responses(rest, marks, i) if message.tool_calls else ""
            out.extend(map(_call, message.tool_calls))
            content = marks.content(replace(message, content=message.content.strip(SPACE)))
            out.append(responses + content)
            following = next((m.role for m in rest[i + 1 :] if m.role != "tool"), "")
            ends = "responses" if responses else "calls" if message.tool_calls else ""
            if ends == "calls":
                out.append("<|tool_response>")
            elif not (role == "model" and following == "assistant") and (content or following or not responses):
                out.append("<turn|>\n")
        if not ends:
            out.append("<|turn>model\n")
            out.append("<|channel>thought\n<channel|>" if self._empty_thought and not thinks else "")
        elif ends == "responses" and thinks:
            out.append("<|channel>thought\n")
        return "".join(out)


def _count(messages: Sequence[Message], at: int) -> int:
    """Return how many results of tools follow a message."""
    end = at + 1
    while end < len(messages) and messages[end].role == "tool":
        end += 1
    return end - at - 1


def _responses(messages: Sequence[Message], marks: markup.MediaMarks, at: int) -> str:
    out = ""
    calls = {call.id: call.name for call in reversed(messages[at].tool_calls) if call.id}
    for i in range(at + 1, at + 1 + _count(messages, at)):
        message = messages[i]
        name = calls.get(message.tool_call_id) or message.tool_name or "unknown"
        out += f"<|tool_response>response:{name}{{value:{_QUOTE}{marks.content(message)}{_QUOTE}}}<tool_response|>"
    return out


def _call(call: ToolCall) -> str:
    return f"<|tool_call>call:{call.name}{_value(markup.arguments(call.arguments))}<tool_call|>"


def _value(value: object) -> str:
    return markup.brief(value, quote=_QUOTE, none="null")


def _declaration(tool: Tool) -> str:
    parameters = tool_schema.reduced(tool)["function"]["parameters"]
    out = []
    if parameters["properties"]:
        out.append(_properties(parameters["properties"]))
    if parameters.get("required"):
        out.append(f"required:{_value(parameters['required'])}")
    if parameters["type"]:
        out.append(f"type:{_QUOTE}{parameters['type'].upper()}{_QUOTE}")
    shown = f"description:{_QUOTE}{tool.description}{_QUOTE},parameters:{{{','.join(out)}}}"
    return f"<|tool>declaration:{tool.name}{{{shown}}}<tool|>"


def _properties(properties: Mapping[str, Any]) -> str:
    return "properties:{" + ",".join(f"{name}:{_property(properties[name])}" for name in sorted(properties)) + "}"


def _property(kept: Mapping[str, Any]) -> str:
    types = tool_schema.types_of(kept)
    if not types:
        options = kept.get("anyOf", ())
        if all(each.keys() == {"type"} for each in options):
            types = list(dict.fromkeys(one for each in options for one in tool_schema.types_of(each)))
    only = types[0].upper() if len(types) == 1 else ""
    out = []
    if kept.get("description"):
        out.append(f"description:{_QUOTE}{kept['description']}{_QUOTE}")
    if only == "STRING" and kept.get("enum"):
        out.append(f"enum:{_value([go_text(each) for each in kept['enum']])}")
    if only == "ARRAY" and isinstance(kept.get("items"), Mapping) and kept["items"]:
        out.append(f"items:{_items(kept['items'])}")
    if only == "OBJECT":
        listed = isinstance(kept.get("items"), Mapping) and "properties" not in kept
        out.append(_properties({"items": kept["items"]} if listed else kept.get("properties") or {}))
        if kept.get("required"):
            out.append(f"required:{_value(kept['required'])}")
    if types:
        names = [name.upper() for name in types]
        text = names[0] if len(names) == 1 else "[" + ", ".join(f"'{name}'" for name in names) + "]"
        out.append(f"type:{_QUOTE}{text}{_QUOTE}")
    return "{" + ",".join(out) + "}"


def _items(items: Mapping[str, Any]) -> str:
    shown = []
    for key in sorted(items):
        value = items[key]
        shown.append(f"{key}:{_value(value.upper() if key == 'type' and isinstance(value, str) else value)}")
    return "{" + ",".join(shown) + "}"
