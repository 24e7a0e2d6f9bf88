"""Writes prompts for Laguna: roles as XML elements, tools as JSON, calls as pairs of keys and values, thinking."""

from collections.abc import Sequence
from typing import Final

from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.format_texts import laguna as format_text
from puna.prompt.builtin.notation import markup

_BOS: Final = "〈|EOS|〉"


class LagunaRenderer:
    """Writes prompts for Laguna."""

    bos = _BOS

    def __init__(self, *, compact: bool) -> None:
        """compact: elements have no line ends, as in the format that is called poolside-v1."""
        self._compact = compact

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""
        thinks = think is not None and think.on
        end = "" if self._compact else "\n"
        headed = bool(messages) and messages[0].role == "system"
        head = messages[0].content if headed else format_text.DEFAULT_SYSTEM
        out = [_BOS, self._head(head, tools, thinks)]
        rest = messages[int(headed) :]
        for i, message in enumerate(rest):
            match message.role:
                case "user" | "system":
                    out.append(f"<{message.role}>{end}{message.content}{end}</{message.role}>\n")
                case "assistant" if self._compact:
                    # The compact format closes a thought in every answer, even if none was opened.
                    thinking = f"<think>{message.thinking}" if thinks else ""
                    calls = "".join(_call(call, end) for call in message.tool_calls)
                    out.append(f"<assistant>{thinking}</think>{message.content}{calls}</assistant>\n")
                case "assistant":
                    out.append(f"<assistant>\n{_answer(message)}" + ("" if i == len(rest) - 1 else "</assistant>\n"))
                case "tool":
                    out.append(f"<tool_response>{end}{message.content}{end}</tool_response>\n")
        # The compact format cannot go on with an answer: it always opens a new one.
        if self._compact or not rest or rest[-1].role != "assistant":
            out.append(f"<assistant>{end}" + ("<think>" if thinks else "</think>"))
        return "".join(out)

    def _head(self, head: str, tools: Sequence[Tool], thinks: bool) -> str:
        listed = ""
        if tools:
            listed = format_text.TOOLS.format(
                signatures="\n".join(markup.spaced(tool_schema.reduced(tool)) for tool in tools)
            )
        if self._compact:
            head = head.rstrip(SPACE) + listed
            return f"<system>{head}</system>\n"
        if tools:
            thoughts = "<think> your thoughts here </think>\n" if thinks else ""
            listed += format_text.CALL_INSTRUCTIONS.format(
                thinking=format_text.THINKING_INSTRUCTIONS if thinks else "", thoughts=thoughts
            )
        head = head.rstrip(SPACE)
        shown = f"\n{head}{listed}" if head else listed
        return f"<system>\n{shown}\n</system>\n" if shown else ""


def _answer(message: Message) -> str:
    thinking, content = message.thinking, message.content
    if "</think>" in content:
        before, _, content = content.rpartition("</think>")
        # A client may send the thought within the content.
        thinking = thinking or before.rpartition("<think>")[2]
    thinking, content = thinking.strip(SPACE), content.strip(SPACE)
    out = f"<think>\n{thinking}\n</think>\n" if thinking else "</think>\n"
    out += f"{content}\n" if content else ""
    return out + "".join(_call(call, "\n") + "\n" for call in message.tool_calls)


def _call(call: ToolCall, end: str) -> str:
    pairs = "".join(
        f"<arg_key>{name}</arg_key>{end}"
        f"<arg_value>{value if isinstance(value, str) else markup.spaced(value)}</arg_value>{end}"
        for name, value in markup.arguments(call.arguments).items()
    )
    return f"<tool_call>{call.name}{end}{pairs}</tool_call>"
