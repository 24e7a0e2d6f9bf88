"""Writes prompts for Command A of 2026: turns between tokens, tools and calls as JSON, thinking."""

from collections.abc import Sequence
from typing import Final

from puna.go import json as gojson
from puna.messages import Message, Think, Tool
from puna.prompt import tool_schema
from puna.prompt.builtin.notation import markup

_BOS: Final = "<BOS_TOKEN>"
_TURN: Final = "<|START_OF_TURN_TOKEN|>"
_END: Final = "<|END_OF_TURN_TOKEN|>"


class CohereRenderer:
    """Writes prompts for Command A."""

    bos = _BOS

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Return the prompt without its first token, which the tokenizer adds."""
        thinks = think is None or think.on
        headed = bool(messages) and messages[0].role == "system"
        head = f"{messages[0].content}\n\n\n\n" if headed and messages[0].content else ""
        out = [f"{_TURN}<|SYSTEM_TOKEN|><|START_TEXT|>{head}{_tools(tools)}<|END_TEXT|>{_END}"]
        numbers = _Numbers()
        rest = messages[int(headed) :]
        begun = False
        for i, message in enumerate(rest):
            last = i == len(rest) - 1
            match message.role:
                case "user" | "system":
                    role = message.role.upper()
                    out.append(f"{_TURN}<|{role}_TOKEN|><|START_TEXT|>{message.content}<|END_TEXT|>{_END}")
                case "assistant":
                    # The model goes on with an answer at the end, unless it has calls, so the turn stays open.
                    begun = last and not message.tool_calls
                    out.append(f"{_TURN}<|CHATBOT_TOKEN|>{_answer(message, numbers)}")
                    out.append("" if begun else _END if message.tool_calls else f"<|END_TEXT|>{_END}")
                # The first of several results writes all of them into one turn.
                case "tool" if not i or rest[i - 1].role != "tool":
                    out.append(_results(rest[i:], numbers))
        if not begun:
            out.append(f"{_TURN}<|CHATBOT_TOKEN|><|START_THINKING|>" + ("" if thinks else "<|END_THINKING|>"))
        return "".join(out)


class _Numbers:
    """Numbers the calls of a conversation, since the format has no other ids, and finds them by the clients' ids."""

    def __init__(self) -> None:
        self._next = 0
        self._by_id: dict[str, str] = {}

    def add(self, given: str) -> str:
        number = str(self._next)
        self._next += 1
        if given:
            # The first call with an id keeps it, since results name the id only.
            self._by_id.setdefault(given, number)
        return number

    def find(self, given: str) -> str:
        return self._by_id.get(given, given)


def _tools(tools: Sequence[Tool]) -> str:
    listed = []
    for tool in tools:
        parameters = markup.spaced(tool_schema.reduced(tool)["function"]["parameters"])
        listed.append(
            f'    {{"name": {gojson.string(tool.name)}, "description": {gojson.string(tool.description)}, '
            f'"parameters": {parameters}, "responses": null}}'
        )
    return "# Available Tools\n```json\n[\n\n" + ",\n\n\n".join(listed) + ("\n\n\n]\n```" if tools else "\n\n]\n```")


def _answer(message: Message, numbers: _Numbers) -> str:
    thinking = f"<|START_THINKING|>{message.thinking}<|END_THINKING|>" if message.thinking else ""
    if not message.tool_calls:
        return f"{thinking}<|START_TEXT|>{message.content}"
    calls = [
        f'    {{"tool_call_id": "{numbers.add(call.id)}", "tool_name": {gojson.string(call.name)}, '
        f'"parameters": {markup.spaced(markup.arguments(call.arguments))}}}'
        for call in message.tool_calls
    ]
    listed = ",\n\n".join(calls)
    # The white space is that of the family's template, which the model has seen in training.
    return f"\n            \n                {thinking}<|START_ACTION|>[\n\n{listed}\n\n]<|END_ACTION|>"


def _results(messages: Sequence[Message], numbers: _Numbers) -> str:
    """Return the results of tools with which `messages` begin, in one turn."""
    out = []
    for message in messages:
        if message.role != "tool":
            break
        out.append(
            f'    {{\n        "tool_call_id": "{numbers.find(message.tool_call_id)}",\n        "results": {{\n\n'
            f'            \n            "0": {{"content": {gojson.string(message.content)}}}\n\n'
            '        },\n        "is_error": null\n    }'
        )
    listed = ",\n".join(out)
    return f"{_TURN}<|SYSTEM_TOKEN|><|START_TOOL_RESULT|>[\n{listed}\n\n]<|END_TOOL_RESULT|>{_END}"
