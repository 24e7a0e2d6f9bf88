"""Writes prompts for Nemotron 3: ChatML, tools and calls as XML with values in Python's notation, thinking."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from puna.go.space import SPACE
from puna.go.template.formatting import text as go_text
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.format_texts import qwen3_coder as coder_text
from puna.prompt.builtin.notation import markup

_EMPTY: Final = "<think></think>"


class NemotronRenderer:
    """Writes prompts for Nemotron 3."""

    bos = ""

    def __init__(self, *, trims: bool) -> None:
        """trims: the messages of users lose the white space around them, as in Nemotron 3 but not in 3.5."""
        self._trims = trims

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""
        thinks = think is None or think.on
        marks = markup.MediaMarkers()
        # Only these roles show media in this family.
        contents = [marks.content(m) if m.role in ("user", "tool") else m.content for m in messages]
        headed = bool(messages) and messages[0].role == "system"
        head = contents[0] if headed else ""
        if tools:
            head += ("\n\n" if head else "") + _tools(tools)
        out = [f"<|im_start|>system\n{head}<|im_end|>\n"]
        question = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
        for i in range(int(headed), len(messages)):
            message, content = messages[i], contents[i]
            match message.role:
                case "assistant":
                    out.append(
                        f"<|im_start|>assistant\n{_answer(message, content, i > question, self._trims)}<|im_end|>\n"
                    )
                case "tool":
                    # Neighbouring results share one turn of the user.
                    out.append("" if not i or messages[i - 1].role == "tool" else "<|im_start|>user\n")
                    out.append(f"<tool_response>\n{content}\n</tool_response>\n")
                    following = i + 1 < len(messages) and messages[i + 1].role == "tool"
                    out.append("" if following else "<|im_end|>\n")
                case role:
                    text = content.strip(SPACE) if self._trims else content
                    if i == question and not self._trims and think is not None and think.level == "medium":
                        text += "\n\n{reasoning effort: efficient}"
                    out.append(f"<|im_start|>{role}\n{text}<|im_end|>\n")
        return "".join(out) + "<|im_start|>assistant\n" + ("<think>\n" if thinks else _EMPTY)


def _answer(message: Message, content: str, recent: bool, keeps_line: bool) -> str:
    """Return an answer. `recent`: it follows the last question; `keeps_line`: thoughts end with a line of their own."""
    if message.thinking:
        end = "\n" if keeps_line else ""
        content = f"<think>\n{message.thinking}{end}</think>{end}{content}"
    elif "<think>" not in content and "</think>" not in content:
        content = _EMPTY + content
    # Earlier thoughts are cut, and an empty thought keeps the form of an answer.
    if not recent and "</think>" in content:
        content = content.rpartition("</think>")[2]
        if message.tool_calls:
            content = content.strip(SPACE)
        content = _EMPTY + content
    content = content.strip(SPACE)
    return content + ("\n" + "".join(map(_call, message.tool_calls)) if message.tool_calls else "")


def _call(call: ToolCall) -> str:
    parameters = "".join(
        f"<parameter={name}>\n{_value(value)}\n</parameter>\n"
        for name, value in markup.arguments(call.arguments).items()
    )
    return f"<tool_call>\n<function={call.name}>\n{parameters}</function>\n</tool_call>\n"


def _value(value: object) -> str:
    match value:
        # This family spells None, True and False as Python does.
        case None | bool():
            return str(value)
        case Mapping() | list():
            return markup.unescaped(value)
    return go_text(value)


def _json(value: object) -> str:
    return markup.unescaped(value) if isinstance(value, Mapping | list) else _value(value)


def _tools(tools: Sequence[Tool]) -> str:
    listed = "".join(map(_tool, tools))
    return f"{coder_text.TOOLS}\n{listed}</tools>\n\n{coder_text.CALL_INSTRUCTIONS}"


def _tool(tool: Tool) -> str:
    parameters = tool_schema.reduced(tool)["function"]["parameters"]
    out = f"<function>\n<name>{tool.name}</name>\n"
    if tool.description.strip(SPACE):
        out += f"<description>{tool.description.strip(SPACE)}</description>\n"
    out += "<parameters>\n"
    for name, kept in (parameters["properties"] or {}).items():
        out += f"<parameter>\n<name>{name}</name>\n{_members(kept)}</parameter>\n"
    for key in ("$defs", "items", "required"):
        if key in parameters:
            out += f"<{key}>{_json(parameters[key])}</{key}>\n"
    return out + "</parameters>\n</function>\n"


def _members(kept: Mapping[str, Any]) -> str:
    out = ""
    types = tool_schema.types_of(kept)
    if types:
        shown = types[0] if len(types) == 1 else "[" + ", ".join(f"'{name}'" for name in types) + "]"
        out += f"<type>{shown}</type>\n"
    if kept.get("description", "").strip(SPACE):
        out += f"<description>{kept['description'].strip(SPACE)}</description>\n"
    for key in ("enum", "anyOf", "items", "properties", "required"):
        if key in kept:
            out += f"<{key}>{markup.unescaped(kept[key])}</{key}>\n"
    return out
