"""Writes prompts for Glimmer: messages with a header that names the recipient, calls in markup that resembles XML."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from puna.go.template.formatting import text as go_text
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.format_texts import glimmer as format_text
from puna.prompt.builtin.glimmer_answer import CALLS, END_OF_CALLS, END_OF_MESSAGE, END_OF_TURN, MESSAGE, START
from puna.prompt.builtin.notation import markup

_BOS: Final = "<|begin_of_text|>"


class GlimmerRenderer:
    """Writes prompts for Glimmer."""

    bos = _BOS

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt. The content of an answer with calls is not shown."""
        strength = "none" if think is not None and not think.on else (think.level if think else "") or "high"
        # The strength and the tools follow every system message, the default one included.
        after = f"\n\nReasoning strength: {strength}.\n\n{_tools(tools)}{END_OF_TURN}"
        out = [_BOS]
        if not any(message.role == "system" for message in messages):
            today = datetime.now().astimezone().strftime("%Y-%m-%d")
            out.append(f"{START}system{MESSAGE}{format_text.DEFAULT_SYSTEM.format(today=today)}{after}")
        # A result without the name of its tool is named after the call with its id.
        names = {call.id: call.name for message in messages for call in message.tool_calls if call.id}
        marks = markup.MediaMarkers()
        for message, following in zip(messages, [*messages[1:], None], strict=True):
            content = marks.content(message)
            match message.role:
                case "system":
                    out.append(f"{START}system{MESSAGE}{content}{after}")
                case "assistant":
                    goes_on = following is not None and following.role == "assistant"
                    out.append(_answer(message, content, END_OF_MESSAGE if goes_on else END_OF_TURN))
                case "tool":
                    name = message.tool_name or names.get(message.tool_call_id, message.tool_call_id)
                    shown = f'<tool_output name="{name}">\n{content}\n</tool_output>'
                    out.append(f"{START}tool {name}{MESSAGE}{shown}{END_OF_TURN}")
                case "user":
                    out.append(f"{START}user{MESSAGE}{content}{END_OF_TURN}")
        return "".join(out) + f"{START}assistant"


def _answer(message: Message, content: str, end_of_calls: str) -> str:
    parts = [_message("self", message.thinking, END_OF_MESSAGE)] if message.thinking else []
    if message.tool_calls:
        last = len(message.tool_calls) - 1
        for i, call in enumerate(message.tool_calls):
            parts.append(_message(call.name, _call(call), end_of_calls if i == last else END_OF_MESSAGE))
    # An answer without thinking, calls and content still is a message.
    elif content or not parts:
        parts.append(_message("user", content, END_OF_TURN))
    return "".join(parts)


def _message(recipient: str, text: str, end: str) -> str:
    return f"{START}assistant to={recipient}{MESSAGE}{text}{end}"


def _call(call: ToolCall) -> str:
    parameters = "".join(
        f'<atem:parameter name="{name}">{_value(value)}</atem:parameter>\n'
        for name, value in markup.arguments(call.arguments).items()
    )
    return f'{CALLS}\n<atem:invoke name="{call.name}">\n{parameters}</atem:invoke>\n{END_OF_CALLS}'


def _value(value: object) -> str:
    match value:
        case None:
            return "null"
        case Mapping() | list():
            return markup.unescaped(value)
    return go_text(value)


def _tools(tools: Sequence[Tool]) -> str:
    # The part of a tool's name before the dot is its namespace, which the format lists once.
    spaces = list(dict.fromkeys(tool.name.partition(".")[0] for tool in tools))
    recipients = ", ".join(f'"{name}"' for name in ("self", *(f"{space}.*" for space in spaces), "user"))
    recipients_line = f"# Valid recipients: {recipients}."
    if not tools:
        return recipients_line
    listed = format_text.TOOLS.format(
        spaces="\n".join(markup.unescaped({"name": space, "description": ""}) for space in spaces),
        functions="\n".join(map(_function, tools)),
    )
    return listed + recipients_line


def _function(tool: Tool) -> str:
    kept = tool_schema.reduced(tool)["function"]["parameters"]
    named = markup.unescaped({"name": tool.name, "description": tool.description})
    return f'{named[:-1]}, "parameters": {markup.parameters(kept)}}}'
