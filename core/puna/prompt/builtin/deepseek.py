"""Writes prompts for DeepSeek 3.1 and Cogito: tokens between full-width bars, calls with JSON arguments, thinking."""

from collections.abc import Iterable, Sequence

from puna.go import json as gojson
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.format_texts import deepseek as format_text
from puna.prompt.builtin.notation import markup


class DeepSeekRenderer:
    """Writes prompts for DeepSeek 3.1."""

    bos = format_text.BOS

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt. All system messages move to its beginning."""
        thinks = think is not None and think.on
        out = [format_text.BOS, "\n\n".join(m.content for m in messages if m.role == "system"), _tools(tools)]
        # Only answers after the last question open as answers after thinking.
        question = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
        is_open = False
        for i, message in enumerate(messages):
            match message.role:
                case "user":
                    out.append(format_text.USER + message.content)
                    is_open = True
                case "assistant":
                    thought = thinks and i > question and bool(message.thinking)
                    out.append(_answer(message, is_open, thought))
                    is_open = False
                case "tool":
                    out.append(format_text.OUTPUT + message.content + format_text.END_OF_OUTPUT)
                    is_open = False
        if is_open:
            out.append(format_text.ASSISTANT + ("<think>" if thinks else "</think>"))
        return "".join(out)


def _tools(tools: Sequence[Tool]) -> str:
    if not tools:
        return ""
    out = format_text.TOOLS
    for tool in tools:
        parameters = gojson.dumps(tool_schema.reduced(tool)["function"]["parameters"])
        out += f"\n### {tool.name}\nDescription: {tool.description}\n\nParameters: {parameters}\n"
    return out + format_text.CALL_INSTRUCTIONS


def _answer(message: Message, first: bool, thought: bool) -> str:
    """Return an answer. `first`: it follows a user's message; `thought`: it opens as an answer after thinking."""
    content = message.content
    # An answer with calls opens without thinking, even if there was some, as in Ollama.
    if message.tool_calls:
        calls = _calls(f"{call.name}{format_text.SEPARATOR}{_arguments(call)}" for call in message.tool_calls)
        return (format_text.ASSISTANT + "</think>" if first else "") + content + calls + format_text.EOS
    # A client may send the thought within the content. It is cut off.
    if first and "</think>" in content:
        content = content.partition("</think>")[2]
    opening = format_text.ASSISTANT + ("<think>" if thought else "</think>") if first else ""
    return opening + content + format_text.EOS


def _calls(bodies: Iterable[str], between: str = "") -> str:
    calls = between.join(format_text.CALL + body + format_text.END_OF_CALL for body in bodies)
    return format_text.CALLS + calls + format_text.END_OF_CALLS


def _arguments(call: ToolCall) -> str:
    return gojson.dumps(markup.arguments(call.arguments))


class CogitoRenderer:
    """Writes prompts for Cogito."""

    bos = format_text.BOS

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt. A system message is shown only where it begins the conversation."""
        thinks = think is not None and think.on
        out = [format_text.BOS, format_text.COGITO_THINKING if thinks else "", format_text.COGITO_SYSTEM]
        if messages and messages[0].role == "system" and messages[0].content:
            out.append("\n\n" + messages[0].content + ("\n\n" if thinks else ""))
        if tools:
            listed = "".join(f"```json\n{_indented(tool_schema.reduced(tool))}\n```\n" for tool in tools)
            out.append(format_text.COGITO_TOOLS + listed)
        outputs = False
        for message in messages:
            if outputs and message.role != "tool":
                out.append(format_text.END_OF_OUTPUTS)
                outputs = False
            match message.role:
                case "user":
                    out.append(format_text.USER + message.content + format_text.ASSISTANT)
                case "assistant":
                    out.append(message.content + _cogito_calls(message.tool_calls) + format_text.EOS)
                case "tool":
                    out.append("\n" if outputs else format_text.OUTPUTS)
                    out.append(format_text.OUTPUT + message.content + format_text.END_OF_OUTPUT)
                    outputs = True
        out.append(format_text.END_OF_OUTPUTS if outputs else "")
        # A user's message has opened the answer already.
        if next((m.role for m in reversed(messages) if m.role in ("user", "assistant", "tool")), "") != "user":
            out.append(format_text.ASSISTANT)
        return "".join(out) + ("<think>\n" if thinks else "")


def _cogito_calls(calls: Sequence[ToolCall]) -> str:
    if not calls:
        return ""
    bodies = (f"function{format_text.SEPARATOR}{call.name}\n```json\n{_arguments(call)}\n```" for call in calls)
    return _calls(bodies, "\n")


def _indented(value: object, margin: str = "") -> str:
    """Return a value as JSON with a line for each member."""
    if not value or not isinstance(value, dict | list):
        return gojson.dumps(value)
    inner = margin + "    "
    if isinstance(value, dict):
        lines = [f"{inner}{gojson.dumps(key)}: {_indented(each, inner)}" for key, each in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    return "[\n" + ",\n".join(inner + _indented(each, inner) for each in value) + f"\n{margin}]"
