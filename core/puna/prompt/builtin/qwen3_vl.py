"""Writes prompts for Qwen3-VL: ChatML, tools and calls as JSON, thinking for some models."""

from collections.abc import Sequence

from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.format_texts import qwen3_vl as format_text
from puna.prompt.builtin.notation import markup


class Qwen3VLRenderer:
    """Writes prompts for Qwen3-VL."""

    bos = ""

    def __init__(self, *, thinks: bool) -> None:
        """thinks: the model thinks unless the client turns thinking off."""
        self._thinks = thinks

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""
        thinks = self._thinks if think is None else think.on
        marks = markup.MediaMarkers()
        contents = [marks.content(message) for message in messages]
        question = markup.last_question(messages)
        out = [_head(messages, tools)]
        for i, message in enumerate(messages):
            last = i == len(messages) - 1
            match message.role:
                case "user" | "system" if message.role == "user" or i:
                    out.append(f"<|im_start|>{message.role}\n{contents[i]}<|im_end|>\n")
                case "assistant":
                    # Thinking of earlier turns is not shown; an answer to go on with gets its block even if empty.
                    block = thinks and i > question and (last or bool(message.thinking))
                    out.append(_answer(message, contents[i], block) + ("" if last else "<|im_end|>\n"))
                case "tool":
                    out.append(markup.chatml_result(messages, i, contents[i]))
        if not messages or messages[-1].role != "assistant":
            out.append("<|im_start|>assistant\n" + ("<think>\n" if thinks else ""))
        return "".join(out)


def _head(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    # The media of a system message are counted but not marked, as in Ollama.
    system = messages[0].content if messages and messages[0].role == "system" else None
    if tools:
        signatures = "\n".join(markup.spaced(tool_schema.reduced(tool)) for tool in tools)
        before = "" if system is None else f"{system}\n\n"
        return f"<|im_start|>system\n{before}{format_text.TOOLS.format(signatures=signatures)}<|im_end|>\n"
    return "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"


def _answer(message: Message, content: str, block: bool) -> str:
    out = "<|im_start|>assistant\n"
    if block:
        out += "<think>\n" + message.thinking.strip("\n")
        # Without content the block stays open: the model goes on thinking.
        out += "\n</think>\n\n" + content.lstrip("\n") if content else ""
    else:
        out += content
    for i, call in enumerate(message.tool_calls):
        out += ("\n" if i or content else "") + _call(call)
    return out


def _call(call: ToolCall) -> str:
    arguments = markup.spaced(markup.arguments(call.arguments))
    return f'<tool_call>\n{{"name": "{call.name}", "arguments": {arguments}}}\n</tool_call>'
