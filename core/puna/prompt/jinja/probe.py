"""Finds out what a chat template does with its input, by rendering small conversations.

Theory. A template uses a value if and only if the prompt depends on that value. So each question is asked with two
conversations that are equal except for one value: if both render and the two prompts differ, the answer is yes. This
needs no knowledge of how a template is written. It holds for a template that prints a value in upper case, cuts it, or
prints it only under a condition, and it fails in the right direction: a template that raises does not use the value.

Each question has the smallest conversation that answers it. `*` marks the value that differs:

| ability | conversation |
|---|---|
| content_parts | user: `*` as a text has no effect, and user: [{type: text, text: `*`}] has one |
| object_arguments | user, assistant calls f({port: `*`}), result of the call |
| system | system: `*`, user |
| tool_calls | as for object_arguments, with the arguments in the notation that the template takes |
| parallel_tool_calls | user, assistant calls f and g(`*`), result of the first call |

The order matters. The first two answers show in which notation a template takes content and arguments, and the later
questions use these notations: a template that takes only parts ignores a system message that is a text. A call is
followed by its result because several templates treat a call at the end of a conversation in a special way. Ids of
calls have nine letters and digits because the templates of Mistral refuse any other.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from puna.prompt.jinja.environment import FAILURES, ChatEnvironment
from puna.prompt.value import Value

_VALUES: Final = ("heather", "oregano")
"""The two values that a question compares. Templates give neither a meaning."""
_NAMES: Final = ("find_ferry", "book_cabin")
_IDS: Final = ("ferry0001", "cabin0002")
_TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Does {name}",
            "parameters": {"type": "object", "properties": {"port": {"type": "string", "description": "Where"}}},
        },
    }
    for name in _NAMES
]

Conversation: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a template does with its input. The repairs of puna.prompt.jinja.repairs depend on it."""

    system: bool = True
    """The prompt shows the system message."""
    content_parts: bool = False
    """Content must be a list of parts; a text is ignored or refused."""
    tool_calls: bool = True
    """The prompt shows the calls of earlier turns."""
    parallel_tool_calls: bool = True
    """The prompt shows every call of a message, not only the first."""
    object_arguments: bool = False
    """The arguments of a call may be an object. Otherwise they must be its JSON text."""


def probe(source: str) -> Abilities:
    """Return what a template does with its input. Raises jinja2.TemplateSyntaxError."""
    render = ChatEnvironment().compiled(source)

    def depends(conversation: Callable[[str], Conversation], **variables: Value) -> bool:
        """Return whether the prompt depends on the value that `conversation` puts into the messages."""
        prompts = []
        for value in _VALUES:
            # Empty texts for the special tokens: a template without them would fail on an undefined name.
            given = {"messages": conversation(value), "bos_token": "", "eos_token": "", "add_generation_prompt": True}
            try:
                prompts.append(render(given | variables))
            # A template that refuses the conversation does not show the value.
            except FAILURES:
                return False
        return prompts[0] != prompts[1]

    parts = not depends(lambda value: [_user(value)]) and depends(lambda value: [_user(_part(value))])
    content = _part if parts else str
    user = _user(content(_VALUES[0]))

    def with_calls(*arguments: Value) -> Conversation:
        result = {"role": "tool", "content": content(_VALUES[0]), "tool_call_id": _IDS[0]}
        return [user, {"role": "assistant", "content": "", "tool_calls": _calls(arguments)}, result]

    as_objects = depends(lambda value: with_calls({"port": value}), tools=_TOOLS)

    def arguments(value: str) -> Value:
        return {"port": value} if as_objects else json.dumps({"port": value})

    return Abilities(
        system=depends(lambda value: [{"role": "system", "content": content(value)}, user]),
        content_parts=parts,
        tool_calls=as_objects or depends(lambda value: with_calls(arguments(value)), tools=_TOOLS),
        parallel_tool_calls=depends(lambda value: with_calls(arguments(_VALUES[0]), arguments(value)), tools=_TOOLS),
        object_arguments=as_objects,
    )


def _user(content: Value) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _part(text: str) -> Value:
    return [{"type": "text", "text": text}]


def _calls(arguments: tuple[Value, ...]) -> Value:
    """Return one call for each of one or two arguments, each of another function."""
    return [
        {"id": identity, "type": "function", "function": {"name": name, "arguments": each}}
        for identity, name, each in zip(_IDS, _NAMES, arguments, strict=False)
    ]
