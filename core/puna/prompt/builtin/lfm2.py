"""Writes prompts for LFM2: ChatML, tools as a JSON list in the system message, calls in Python's notation.

An assistant's message has its calls before its content. The last message stays open if the assistant wrote it.
"""

from collections.abc import Sequence
from typing import Final

from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.notation import markup

_BOS: Final = "<|startoftext|>"


class Lfm2Renderer:
    """Writes prompts for LFM2."""

    bos = _BOS

    def __init__(self, *, thinks: bool) -> None:
        """With `thinks`, prompts contain the thinking of earlier answers. It is set for models that think."""
        self._thinks = thinks

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt."""
        keeps = self._thinks and (think is None or think.on)
        marks = markup.MediaMarkers()
        contents = [marks.content(message) for message in messages]
        # The last answer keeps its thinking in any case, since the model may go on with it.
        final = max((i for i, m in enumerate(messages) if m.role == "assistant"), default=-1)
        headed = bool(messages) and messages[0].role == "system"
        head = _head(messages[0].content if headed else "", tools)
        out = [_BOS, f"<|im_start|>system\n{head}<|im_end|>\n" if head else ""]
        for i in range(int(headed), len(messages)):
            message, content = messages[i], contents[i]
            out.append(f"<|im_start|>{message.role}\n")
            if message.role == "assistant":
                out.append(self._answer(message, content, keeps_thinking=keeps or i == final))
                out.append("" if i == len(messages) - 1 else "<|im_end|>\n")
            elif message.role == "tool":
                out.append(f"<|tool_response_start|>{content}<|tool_response_end|><|im_end|>\n")
            else:
                out.append(f"{content}<|im_end|>\n")
        if not messages or messages[-1].role != "assistant":
            out.append("<|im_start|>assistant\n")
        return "".join(out)

    def _answer(self, message: Message, content: str, *, keeps_thinking: bool) -> str:
        shows = self._thinks and bool(message.thinking) and "</think>" not in content
        if message.tool_calls:
            calls = f"<|tool_call_start|>[{','.join(map(_call, message.tool_calls))}]<|tool_call_end|>"
            content = calls + (f"\n{content}" if content else "")
        content = f"<think>{message.thinking}</think>{content}" if shows else content
        if not keeps_thinking and "</think>" in content:
            content = content.rpartition("</think>")[2].strip(SPACE)
        return content


def _head(system: str, tools: Sequence[Tool]) -> str:
    if not tools:
        return system
    listed = ", ".join(map(_tool, tools))
    return f"{system}{chr(10) if system else ''}List of tools: <|tool_list_start|>[{listed}]<|tool_list_end|>"


def _tool(tool: Tool) -> str:
    function = tool_schema.reduced(tool)["function"]
    kept = function.pop("parameters")
    return f'{markup.unescaped(function)[:-1]}, "parameters": {markup.parameters(kept)}}}'


def _call(call: ToolCall) -> str:
    # Sorted by name, as Ollama does for this family.
    arguments = sorted(markup.arguments(call.arguments).items())
    return f"{call.name}({','.join(f'{name}={markup.unescaped(value)}' for name, value in arguments)})"
