"""Conversations, and their text as ``core/puna/demo/template.tmpl`` writes it (in Python, for training)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Tool:
    """A function offered to the model; parameters as (name, JSON type) sorted by name, as Go prints maps."""

    name: str
    description: str
    parameters: tuple[tuple[str, str], ...]

    def line(self) -> str:
        """The tool as the template writes it."""
        listed = "".join(f" {name}:{kind}" for name, kind in self.parameters)
        return f"{self.name}({listed} ) {self.description}\n"

    def schema(self) -> dict[str, Any]:
        """The tool as clients send it."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": {
                    "type": "object",
                    "required": [name for name, _ in self.parameters],
                    "properties": {name: {"type": kind} for name, kind in self.parameters},
                },
            },
        }


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. ``calls`` are (name, arguments); ``hidden`` is a part of the text that no loss is taken on."""

    role: str
    content: str = ""
    thinking: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    hidden: tuple[str, ...] = ()

    def answer(self) -> str:
        """What the model says: content and calls, without its thinking."""
        return self.content + "".join(call_text(name, arguments) for name, arguments in self.calls)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is rendered: system text, tools and turns; the last turn is the assistant's when it is for training."""

    turns: Sequence[Turn]
    system: str = ""
    tools: Sequence[Tool] = field(default=())
    think: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text; ``learned`` marks what the model says itself, up to its end token."""

    text: str
    learned: bool = False
    hidden: tuple[str, ...] = ()


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """A tool call as the template writes it: compact, keys sorted, Go's escapes."""
    return f'<tool_call>{{"name":"{name}","arguments":{go_json(arguments)}}}</tool_call>'


def go_json(value: Any) -> str:  # noqa: ANN401
    """Compact JSON as Go's encoder writes a map."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def segments(conversation: Conversation) -> list[Segment]:
    """The text of a conversation in stretches. Without a last assistant turn it ends where the model shall speak."""
    out: list[Segment] = []
    if conversation.system:
        out.append(Segment("<|system|>" + conversation.system))
    if conversation.tools:
        out.append(Segment("<|tools|>" + "".join(tool.line() for tool in conversation.tools)))
    turns = conversation.turns
    last_user = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
    for i, turn in enumerate(turns):
        last = i == len(turns) - 1
        if turn.role == "assistant":
            out.append(Segment(("<|think|>" if last and conversation.think else "") + "<|assistant|>"))
            thought = f"<think>{turn.thinking}</think>" if turn.thinking and i > last_user else ""
            # Earlier thoughts stand there without the marker that asked for them: nothing to learn from.
            out.append(Segment(thought + turn.answer(), learned=last or not thought, hidden=turn.hidden))
        else:
            out.append(Segment(f"<|{turn.role}|>{turn.content}"))
            if last:
                out.append(Segment(("<|think|>" if conversation.think else "") + "<|assistant|>"))
    return out


def prompt(conversation: Conversation) -> str:
    """The rendered text."""
    return "".join(segment.text for segment in segments(conversation))
