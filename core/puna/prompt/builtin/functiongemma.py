"""Writes prompts for FunctionGemma: the turns of Gemma, functions and calls in a notation with bare keys."""

from collections.abc import Sequence
from typing import Final

from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.format_texts import functiongemma as format_text
from puna.prompt.builtin.notation import markup

_BOS: Final = "<bos>"
_ESCAPE: Final = "<escape>"


class FunctionGemmaRenderer:
    """Writes prompts for FunctionGemma."""

    bos = _BOS

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:  # noqa: ARG002
        """Return the prompt."""
        rest = list(messages)
        head = ""
        if rest and rest[0].role in ("system", "developer"):
            head = rest.pop(0).content.strip(SPACE)
        out = [_BOS]
        if head or tools:
            out.append(f"<start_of_turn>developer\n{head}")
            if tools:
                out.append("\n" if head else "")
                out.append(format_text.TOOLS)
                out.extend(map(_declaration, tools))
            out.append("<end_of_turn>\n")
        called: list[str] = []
        responded = False
        for i, message in enumerate(rest):
            match message.role:
                case "assistant":
                    # Results leave the model's turn open, and the answer after them goes on in it.
                    out.append("" if responded else "<start_of_turn>model\n")
                    out.append(message.content.strip(SPACE))
                    out.extend(map(_call, message.tool_calls))
                    answered = i + 1 < len(rest) and rest[i + 1].role == "tool"
                    out.append("" if message.tool_calls and answered else "<end_of_turn>\n")
                    called = [call.name for call in message.tool_calls]
                    responded = False
                case "tool":
                    # Results are named after the calls in their order, whatever names they have, as in Ollama.
                    name = called.pop(0) if called else ""
                    responded = True
                    out.append(
                        f"<start_function_response>response:{name}"
                        f"{{{_ESCAPE}{message.content}{_ESCAPE}}}<end_function_response>"
                    )
                case role:
                    out.append("" if responded and role == "user" else f"<start_of_turn>{role}\n")
                    responded = responded and role != "user"
                    out.append(f"{message.content.strip(SPACE)}<end_of_turn>\n")
        if not rest or rest[-1].role != "tool":
            out.append("<start_of_turn>model\n")
        return "".join(out)


def _call(call: ToolCall) -> str:
    return f"<start_function_call>call:{call.name}{_value(markup.arguments(call.arguments))}<end_function_call>"


def _value(value: object) -> str:
    return markup.brief(value, quote=_ESCAPE, none="<nil>")


def _declaration(tool: Tool) -> str:
    parameters = tool_schema.reduced(tool)["function"]["parameters"]
    out = []
    if parameters["properties"]:
        shown = []
        # Sorted, as Gemma's notation sorts the keys of all objects.
        for name, kept in sorted(parameters["properties"].items()):
            types = tool_schema.types_of(kept)
            type_ = f",type:{_ESCAPE}{types[0].upper()}{_ESCAPE}" if types else ""
            shown.append(f"{name}:{{description:{_ESCAPE}{kept.get('description', '')}{_ESCAPE}{type_}}}")
        out.append("properties:{" + ",".join(shown) + "}")
    if parameters.get("required"):
        out.append(f"required:{_value(parameters['required'])}")
    out.append(f"type:{_ESCAPE}OBJECT{_ESCAPE}")
    return (
        f"<start_function_declaration>declaration:{tool.name}{{description:{_ESCAPE}{tool.description}{_ESCAPE}"
        f",parameters:{{{','.join(out)}}}}}<end_function_declaration>"
    )
