"""Writes prompts for Qwen3.5, Qwen3.8 and Ornith: ChatML, tools as JSON, calls as XML, thinking."""

from collections.abc import Sequence

from puna.go.space import SPACE
from puna.messages import Message, Think, Tool
from puna.prompt import tool_schema
from puna.prompt.builtin.format_texts import qwen3_coder as coder_text
from puna.prompt.builtin.format_texts import qwen35 as format_text
from puna.prompt.builtin.notation import markup
from puna.prompt.builtin.qwen3_coder import call_text


class Qwen35Renderer:
    """Writes prompts for Qwen3.5 and Ornith."""

    bos = ""

    def __init__(self, *, keeps: bool = False) -> None:
        """keeps: the thinking of all turns is shown, even if thinking is off, as for Ornith."""
        self._keeps = keeps

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""
        thinks = think is None or think.on
        marks = markup.MediaMarkers()
        contents = [marks.content(message).strip(SPACE) for message in messages]
        # Answers after the last question belong to the current turn, and their thinking is still needed.
        question = markup.last_question(messages)
        out = [_head(messages, contents, tools)]
        for i, message in enumerate(messages):
            last = i == len(messages) - 1
            match message.role:
                case "user" | "system" if message.role == "user" or i:
                    out.append(f"<|im_start|>{message.role}\n{contents[i]}<|im_end|>\n")
                case "assistant":
                    if self._keeps and message.thinking:
                        # A thought that came apart from the content needs no search for `</think>` in the content.
                        answer = _written(message, message.thinking, contents[i], True)
                    else:
                        answer = _answer(message, contents[i], self._keeps or (thinks and i > question))
                    out.append(answer + ("" if last else "<|im_end|>\n"))
                case "tool":
                    out.append(markup.chatml_result(messages, i, contents[i]))
        if not messages or messages[-1].role != "assistant":
            out.append("<|im_start|>assistant\n<think>\n" + ("" if thinks else "\n</think>\n\n"))
        return "".join(out)


class Qwen38Renderer:
    """Writes prompts for Qwen3.8: the thinking of all turns is shown, and a sentence tells how hard to think."""

    bos = ""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt. All system messages move to its beginning."""
        thinks = think is None or think.on
        marks = markup.MediaMarkers()
        contents = [marks.content(message).strip(SPACE) for message in messages]
        systems = [text for m, text in zip(messages, contents, strict=True) if m.role in ("system", "developer")]
        effort = (
            format_text.EFFORTS.get(think.level.replace("max", "high"), "") if think is not None and think.on else ""
        )
        parts = [effort, _tools(tools), "\n\n".join(filter(None, systems))]
        head = "\n\n".join(filter(None, parts))
        out = [f"<|im_start|>system\n{head}<|im_end|>\n" if head else ""]
        for i, message in enumerate(messages):
            last = i == len(messages) - 1
            match message.role:
                case "user":
                    out.append(f"<|im_start|>user\n{contents[i]}<|im_end|>\n")
                case "assistant":
                    out.append(
                        _written(message, message.thinking, contents[i], True) + ("" if last else "<|im_end|>\n")
                    )
                case "tool":
                    out.append(markup.chatml_result(messages, i, contents[i]))
        if not messages or messages[-1].role != "assistant":
            out.append("<|im_start|>assistant\n<think>\n" + ("" if thinks else "\n</think>\n\n"))
        return "".join(out)


def _head(messages: Sequence[Message], contents: Sequence[str], tools: Sequence[Tool]) -> str:
    system = contents[0] if messages and messages[0].role == "system" else None
    if tools:
        after = f"\n\n{system}" if system else ""
        return f"<|im_start|>system\n{_tools(tools)}{after}<|im_end|>\n"
    return "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"


def _tools(tools: Sequence[Tool]) -> str:
    if not tools:
        return ""
    signatures = "\n".join(markup.spaced(tool_schema.reduced(tool)) for tool in tools)
    listed = f"{coder_text.TOOLS}\n{signatures}\n</tools>"
    return f"{listed}\n\n{coder_text.CALL_INSTRUCTIONS}"


def _answer(message: Message, content: str, block: bool) -> str:
    thinking = message.thinking
    if "</think>" in content:
        before, _, content = content.rpartition("</think>")
        # A client may send the thought within the content.
        thinking = thinking or before.rpartition("<think>")[2]
        content = content.lstrip("\n")
    return _written(message, thinking, content, block)


def _written(message: Message, thinking: str, content: str, block: bool) -> str:
    out = "<|im_start|>assistant\n"
    if block:
        out += f"<think>\n{thinking.strip(SPACE)}\n</think>\n\n"
    out += content
    for i, call in enumerate(message.tool_calls):
        out += ("\n" if i else "\n\n" if content else "") + call_text(call)
    return out
