"""What a chat template can do, found out by rendering small conversations and watching what it looks at.

The reference decides by the same means which repairs a template's input needs (puna.prompt.jinja.repairs), so what is
watched, and when it counts, decides about prompts: a value counts as used when the template reads it, whether or not it
is printed.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from jinja2 import TemplateRuntimeError

from puna.prompt.jinja.environment import FAILURES, ChatEnvironment, as_string, tojson
from puna.prompt.value import Value

_TEXT: Final = "STRING_MARKER"
_PLACEHOLDER: Final = "<REASONING_CONTENT_PLACEHOLDER>"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a template reads of its input."""

    system: bool = True
    """System messages; false: it never looks at their content."""
    text_content: bool = True
    """Content that is a string."""
    typed_content: bool = False
    """Content that is a list of parts with a type."""
    tools: bool = True
    tool_calls: bool = True
    parallel_tool_calls: bool = True
    object_arguments: bool = False
    """It looks into a call's arguments, so they must be an object rather than its JSON text."""
    kept_reasoning: bool = False
    """It can print the reasoning of earlier turns."""


@dataclass(slots=True)
class _Watch:
    used: set[str] = field(default_factory=set)
    """Paths of the values that were read, such as "messages.0.content"."""
    done_to: set[tuple[str, str]] = field(default_factory=set)
    """Paths with what was done to them: "index", "iterate", "is string"."""


class _Text(str):
    """A string that tells when it is treated as a list."""

    __slots__ = ("path", "watch")
    path: str
    watch: _Watch

    def __iter__(self) -> Iterator[str]:
        self.watch.done_to.add((self.path, "iterate"))
        raise TemplateRuntimeError("Expected iterable or object type in for loop: got String")

    def __getitem__(self, key: Value) -> str:
        if isinstance(key, int):
            self.watch.done_to.add((self.path, "index"))
        return super().__getitem__(key)


class _List(list[Any]):
    """A list that tells which of its items are read."""

    __slots__ = ("path", "watch")
    path: str
    watch: _Watch

    def __iter__(self) -> Iterator[Any]:
        self.watch.done_to.add((self.path, "iterate"))
        return super().__iter__()

    def __getitem__(self, key: Value) -> Value:
        if isinstance(key, int):
            self.watch.done_to.add((self.path, "index"))
            self.watch.used.add(f"{self.path}.{key % len(self) if len(self) else key}")
        return super().__getitem__(key)


class _Map(dict[str, Any]):
    """An object that tells which of its members are read."""

    __slots__ = ("path", "watch")
    path: str
    watch: _Watch

    def __getitem__(self, key: Value) -> Value:
        self.watch.used.add(f"{self.path}.{key}")
        return super().__getitem__(key)

    def get(self, key: Value, default: Value = None) -> Value:
        """Return a member, or the default."""
        self.watch.used.add(f"{self.path}.{key}")
        return super().get(key, default)

    def items(self) -> Value:
        """Return pairs; whoever asks reads the values too."""
        self.watch.used.update(f"{self.path}.{key}" for key in self)
        return super().items()

    def values(self) -> Value:
        """Return the values."""
        self.watch.used.update(f"{self.path}.{key}" for key in self)
        return super().values()


def _watched(value: Value, path: str, watch: _Watch) -> Value:
    out: Value
    if isinstance(value, str):
        out = _Text(value)
    elif isinstance(value, dict):
        out = _Map({key: _watched(each, f"{path}.{key}", watch) for key, each in value.items()})
    elif isinstance(value, list):
        out = _List([_watched(each, f"{path}.{index}", watch) for index, each in enumerate(value)])
    else:
        return value
    out.path, out.watch = path, watch
    return out


def _read_deeply(value: Value) -> None:
    if isinstance(value, _Text | _Map | _List):
        value.watch.used.add(value.path)
    if isinstance(value, _Map):
        for each in value.values():
            _read_deeply(each)
    elif isinstance(value, _List):
        for each in list.__iter__(value):
            _read_deeply(each)


def _watching_environment() -> ChatEnvironment:
    environment = ChatEnvironment()

    def watching_tojson(value: Value, *arguments: Value, **options: Value) -> str:
        _read_deeply(value)
        return tojson(_plain(value), *arguments, **options)

    def is_string(value: Value) -> bool:
        if isinstance(value, _Text | _List):
            value.watch.done_to.add((value.path, "is string"))
        return isinstance(value, str)

    def is_iterable(value: Value) -> bool:
        return isinstance(value, str | list | tuple | dict)

    def string(value: Value) -> str:
        _read_deeply(value)
        return as_string(_plain(value))

    environment.filters |= {"tojson": watching_tojson, "string": string}
    environment.tests |= {"string": is_string, "iterable": is_iterable, "sequence": is_iterable}
    return environment


def _plain(value: Value) -> Value:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in dict.items(value)}
    if isinstance(value, list):
        return [_plain(each) for each in list.__iter__(value)]
    return str(value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class _Trial:
    text: str | None
    """What was rendered; None: the template failed."""
    watch: _Watch

    def read(self, path: str) -> bool:
        """Tell whether a value was read, at whatever path it is or below it."""
        return any(used == path or used.startswith(path + ".") for used in self.watch.used)

    def as_list(self, path: str) -> bool:
        """Tell whether a value was treated as a list."""
        return bool({(path, "iterate"), (path, "index")} & self.watch.done_to)


def _call(number: int, arguments: Value) -> dict[str, Any]:
    function = {"name": "tool1", "arguments": arguments}
    return {"id": f"call0000{number}", "type": "function", "function": function}


def _with_calls(*calls: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "User message"},
        {"role": "assistant", "content": "", "tool_calls": list(calls)},
        {"role": "tool", "content": "Tool response", "tool_call_id": "call00001"},
        {"role": "assistant", "content": "The tool response was 'tool response'"},
        {"role": "user", "content": "User message"},
    ]


_PARAMETERS: Final = {
    "type": "object",
    "properties": {"arg": {"type": "string", "description": "Arg description"}},
    "required": ["arg"],
}
_TOOLS: Final = [
    {
        "name": "tool",
        "type": "function",
        "function": {"name": "tool1", "description": "Tool description", "parameters": _PARAMETERS},
    }
]


def probe(source: str) -> Abilities:
    """Find out what a template reads. Raises jinja2.TemplateSyntaxError."""
    render = _watching_environment().compiled(source)

    def attempt(messages: list[dict[str, Any]], tools: list[Any] | None = None, **more: Value) -> _Trial:
        watch = _Watch()
        shown = {"messages": _watched(messages, "messages", watch), "tools": _watched(tools or [], "tools", watch)}
        try:
            given = shown | more | {"bos_token": "", "eos_token": "", "add_generation_prompt": True}
            text = render(given)
        except FAILURES:
            return _Trial(None, watch)
        return _Trial(text, watch)

    text_content, typed_content = _content_abilities(attempt)
    system = attempt([{"role": "system", "content": "System message"}, {"role": "user", "content": "User message"}])
    tools, tool_calls, object_arguments = _tool_abilities(attempt)
    arguments: Value = {"arg": "value"} if object_arguments else '{"arg": "value"}'
    parallel = attempt(_with_calls(_call(1, arguments), _call(2, arguments)), _TOOLS)
    return Abilities(
        system=system.read("messages.0.content"),
        text_content=text_content,
        typed_content=typed_content,
        tools=tools,
        tool_calls=tool_calls,
        parallel_tool_calls=parallel.text is not None and parallel.read("messages.1.tool_calls.1.function"),
        object_arguments=object_arguments,
        kept_reasoning=_PLACEHOLDER in (attempt(_REASONED, None, **_KEEP_REASONING).text or ""),
    )


_REASONED: Final = [
    {"role": "user", "content": "User message"},
    {"role": "assistant", "content": "Assistant message", "reasoning_content": _PLACEHOLDER},
    {"role": "user", "content": "User message"},
    {"role": "assistant", "content": "Assistant message", "reasoning_content": "Reasoning content"},
    {"role": "user", "content": "User message"},
]
_KEEP_REASONING: Final = {
    "enable_thinking": True,
    "preserve_thinking": True,
    "clear_thinking": False,
    "truncate_history_thinking": False,
    "drop_thinking": False,
}


def _content_abilities(attempt: Callable[..., _Trial]) -> tuple[bool, bool]:
    path = "messages.0.content"
    trial = attempt([{"role": "user", "content": _TEXT}])
    as_list = trial.as_list(path)
    text = trial.text is not None and not (as_list and _TEXT not in trial.text)
    typed = as_list
    if (path, "is string") in trial.watch.done_to:
        trial = attempt([{"role": "user", "content": []}])
        typed = typed or (trial.text is not None and trial.as_list(path))
    return text, typed


def _tool_abilities(attempt: Callable[..., _Trial]) -> tuple[bool, bool, bool]:
    """Return whether it reads tools, calls, and into the arguments of calls."""
    tools = tool_calls = True
    trial = attempt(_with_calls(_call(1, {"arg": "value"})), _TOOLS)
    if trial.text is not None:
        tools = trial.read("tools.0.function.name")
        tool_calls = trial.read("messages.1.tool_calls")
        if tool_calls and trial.read("messages.1.tool_calls.0.function.arguments.arg"):
            return tools, tool_calls, True
    trial = attempt(_with_calls(_call(1, json.dumps({"arg": "value"}))), _TOOLS)
    if trial.text is None:
        return False, False, False
    return tools and trial.read("tools.0.function.name"), tool_calls and trial.read("messages.1.tool_calls"), False
