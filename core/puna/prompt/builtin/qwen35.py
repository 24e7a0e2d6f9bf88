"""Qwen3.5 and its relatives: ChatML, tools as JSON, calls as XML, thinking."""

from collections.abc import Sequence

from puna.gotemplate.space import SPACE
from puna.messages import Message, Think, Tool
from puna.prompt import tool_schema
from puna.prompt.builtin import markup
from puna.prompt.builtin.qwen3_coder import INSTRUCTIONS, call_text


class Qwen35Renderer:
    """Renders for Qwen3.5."""

    bos = ""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""
        thinks = think is None or think.on
        marks = markup.MediaMarks()
        contents = [marks.content(message).strip(SPACE) for message in messages]
        question = markup.last_question(messages)
        out = [_head(messages, contents, tools)]
        for i, message in enumerate(messages):
            last = i == len(messages) - 1
            match message.role:
                case "user" | "system" if message.role == "user" or i:
                    out.append(f"<|im_start|>{message.role}\n{contents[i]}<|im_end|>\n")
                case "assistant":
                    answer = _answer(message, contents[i], thinks and i > question)
                    out.append(answer + ("" if last else "<|im_end|>\n"))
                case "tool":
                    out.append("" if i and messages[i - 1].role == "tool" else "<|im_start|>user")
                    out.append(f"\n<tool_response>\n{contents[i]}\n</tool_response>")
                    out.append("" if not last and messages[i + 1].role == "tool" else "<|im_end|>\n")
        if not messages or messages[-1].role != "assistant":
            out.append("<|im_start|>assistant\n<think>\n" + ("" if thinks else "\n</think>\n\n"))
        return "".join(out)


def _head(messages: Sequence[Message], contents: Sequence[str], tools: Sequence[Tool]) -> str:
    system = contents[0] if messages and messages[0].role == "system" else None
    if tools:
        signatures = "\n".join(markup.spaced(tool_schema.reduced(tool)) for tool in tools)
        listed = f"# Tools\n\nYou have access to the following functions:\n\n<tools>\n{signatures}\n</tools>"
        after = f"\n\n{system}" if system else ""
        return f"<|im_start|>system\n{listed}\n\n{INSTRUCTIONS}{after}<|im_end|>\n"
    return "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"


def _answer(message: Message, content: str, block: bool) -> str:
    thinking = message.thinking
    if "</think>" in content:
        before, _, content = content.rpartition("</think>")
        thinking = thinking or before.rpartition("<think>")[2]
        content = content.lstrip("\n")
    out = "<|im_start|>assistant\n"
    if block:
        out += f"<think>\n{thinking.strip(SPACE)}\n</think>\n\n"
    out += content
    for i, call in enumerate(message.tool_calls):
        out += ("\n" if i else "\n\n" if content else "") + call_text(call)
    return out
