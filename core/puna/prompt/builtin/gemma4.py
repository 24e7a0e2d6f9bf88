"""Writes prompts for Gemma 4: turns, a channel for thoughts, tools and calls in a notation with bare keys.

    <bos> [<|turn>system ... declarations of tools <turn|>] (<|turn>ROLE ... <turn|>)* <|turn>model

Results of tools have no turn of their own. They follow the calls that they answer, within the turn of the model, so the
loop over the messages passes them over and the assistant's message writes them. A turn of the model stays open while
the model is to go on: after calls without results, after results, and between neighbours of the same role.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from puna.go.space import SPACE
from puna.go.template.formatting import text as go_text
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.notation import markup

_BOS: Final = "<bos>"
_QUOTE: Final = '<|"|>'
_SIZE: Final = re.compile(r"(?<![a-z0-9.])(e?)([0-9]+(?:\.[0-9]+)?)b(?![a-z0-9])")
"""A size such as "12b" in a model's name; "e4b" counts effective parameters."""
_LARGE: Final = 12e9
"""Parameters from which a model is large."""


def variant(model: str, parameters: Callable[[], int]) -> str:
    """Return the renderer that "gemma4" means for a model: by the size in its name, else by its parameters."""
    found = _SIZE.search(model.lower())
    size = float(found[2]) * 1e9 if found else parameters()
    return "gemma4-large" if size >= _LARGE and not (found and found[1]) else "gemma4-small"


class Gemma4Renderer:
    """Writes prompts for Gemma 4."""

    bos = _BOS

    def __init__(self, *, empty_thought: bool) -> None:
        """empty_thought: a turn that is to have no thinking begins with an empty thought, as for the large models."""
        self._empty_thought = empty_thought

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""
        thinks = think is not None and think.on
        rest = list(messages)
        head = rest.pop(0).content.strip(SPACE) if rest and rest[0].role in ("system", "developer") else None
        out = [_BOS]
        if head is not None or thinks or tools:
            declared = "".join(map(_declaration, tools))
            switch = "<|think|>\n" if thinks else ""
            out.append(f"<|turn>system\n{switch}{head or ''}{declared}<turn|>\n")
        turns = _Turns(rest)
        out.extend(turns.write(at) for at, message in enumerate(rest) if message.role != "tool")
        return "".join(out) + self._opening(turns, thinks=thinks)

    def _opening(self, turns: "_Turns", *, thinks: bool) -> str:
        """Return how the model's turn opens, or goes on where the last turn is still open."""
        if turns.ends_with_calls:
            return ""
        if turns.ends_with_results:
            return "<|channel>thought\n" if thinks else ""
        return "<|turn>model\n" + ("<|channel>thought\n<channel|>" if self._empty_thought and not thinks else "")


class _Turns:
    """Writes the turns of a conversation, in order."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        # Numbered in the order of writing: results come before the content of the message whose calls they answer.
        self._media = markup.MediaMarkers()
        self._question = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
        self._role = ""
        """Of the turn that was written last."""
        self.ends_with_calls = False
        """The last message has calls without results."""
        self.ends_with_results = False
        """The last message has calls, and all that follows are their results."""

    def write(self, at: int) -> str:
        """Return the message at a place, with the results that follow its calls."""
        message = self._messages[at]
        role = "model" if message.role == "assistant" else message.role
        # Neighbouring messages of the model share one turn.
        out = "" if role == self._role == "model" else f"<|turn>{role}\n"
        self._role = role
        if message.thinking and role == "model" and at > self._question:
            out += f"<|channel>thought\n{message.thinking}\n<channel|>"
        results = _results(self._messages, self._media, at) if message.tool_calls else ""
        text = message.content.lstrip(SPACE)
        content = self._media.content(message.with_content(text.rstrip(SPACE), len(message.content) - len(text)))
        out += "".join(map(_call, message.tool_calls)) + results + content
        self.ends_with_results = bool(results)
        self.ends_with_calls = bool(message.tool_calls) and not results
        return out + self._end(at, role, content)

    def _end(self, at: int, role: str, content: str) -> str:
        if self.ends_with_calls:
            return "<|tool_response>"
        following = next((message.role for message in self._messages[at + 1 :] if message.role != "tool"), "")
        goes_on = role == "model" and following == "assistant"
        # The model goes on in its own turn after the results.
        waits = self.ends_with_results and not content and not following
        return "" if goes_on or waits else "<turn|>\n"


def _count(messages: Sequence[Message], at: int) -> int:
    """Return how many results of tools follow a message."""
    end = at + 1
    while end < len(messages) and messages[end].role == "tool":
        end += 1
    return end - at - 1


def _results(messages: Sequence[Message], marks: markup.MediaMarkers, at: int) -> str:
    """Return the results that follow the message at a place, each with the name of the tool that was called."""
    out = ""
    # Reversed, so that of calls with the same id the first gives its name.
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
        # Alternatives that are bare types count as a list of types; any other alternatives are not shown.
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
        # Several types print as Python prints a list.
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
