"""Writes prompts for Olmo 3: ChatML with default system messages, and calls in Python's notation or thinking."""

from collections.abc import Sequence

from puna.go import json as gojson
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.format_texts import olmo3 as format_text
from puna.prompt.builtin.notation import markup


class Olmo3Renderer:
    """Writes prompts for the models that call tools."""

    bos = ""

    def __init__(self, *, system: str) -> None:
        """`system` begins the system message of conversations that have none."""
        self._system = system

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:  # noqa: ARG002
        """Return the prompt. Only the first system message counts."""
        system = next((m.content for m in messages if m.role == "system"), None)
        rest = [message for message in messages if message.role != "system"]
        listed = f"<functions>{markup.spaced([tool_schema.reduced(tool) for tool in tools])}</functions>"
        head = self._system + (format_text.WITH_TOOLS if tools else format_text.NO_TOOLS) if system is None else system
        out = [f"<|im_start|>system\n{head}{listed if tools else ''}<|im_end|>\n"]
        begun = False
        for i, message in enumerate(rest):
            match message.role:
                case "user":
                    out.append(f"<|im_start|>user\n{message.content}<|im_end|>\n")
                case "assistant":
                    calls = "\n".join(map(_call, message.tool_calls))
                    out.append(f"<|im_start|>assistant\n{message.content}")
                    out.append(f"<function_calls>{calls}</function_calls>" if calls else "")
                    # An answer at the end stays open for the model to go on with; after calls their results must come.
                    last = i == len(rest) - 1 and not calls
                    out.append("" if last else "<|im_end|>\n")
                    begun = last and bool(message.content)
                case "tool":
                    out.append(f"<|im_start|>environment\n{message.content}<|im_end|>\n")
        return "".join(out) + ("" if begun else "<|im_start|>assistant\n")


def _call(call: ToolCall) -> str:
    # Sorted by name, as Ollama does for this family.
    arguments = sorted(markup.arguments(call.arguments).items())
    return f"{call.name}({', '.join(f'{name}={gojson.dumps(value)}' for name, value in arguments)})"


class Olmo3ThinkRenderer:
    """Writes prompts for the models that think."""

    bos = ""

    def __init__(self, *, system: str) -> None:
        """system: the system message of conversations without one."""
        self._system = system

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:  # noqa: ARG002
        """Return the prompt. Tools and their results are not shown."""
        system = next((m.content for m in messages if m.role == "system"), None)
        out = [
            f"<|im_start|>system\n{self._system if system is None else f'{system} {format_text.NO_TOOLS}'}<|im_end|>\n"
        ]
        shown = (message for message in messages if message.role in ("user", "assistant"))
        out.extend(f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n" for message in shown)
        return "".join(out) + "<|im_start|>assistant\n<think>"
