"""The notations of calls for each way in which an answer is parsed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from puna.messages import Tool
from puna.prompt import tool_schema
from puna.prompt.builtin.call_layouts import CALL_LAYOUTS
from puna.prompt.builtin.glimmer_answer import CALLS
from puna.prompt.builtin.qwen3_coder_answer import typed_exactly
from puna.prompt.call_deltas.json_scanner import UnreadableJsonError
from puna.prompt.call_deltas.reader import Notation
from puna.prompt.jinja.arguments import Schemas
from puna.prompt.layout import CallSyntax, OutputLayout
from puna.prompt.value import Value

_GO_LAYOUT: Final = OutputLayout(name="go template", call_syntax=CallSyntax.JSON)
_PLAIN_TYPES: Final = ("boolean", "integer", "number", "array", "object")
"""The types that a text may have in place of a string."""
_PAIRS: Final = ("glm-4.7", "glm-ocr", "laguna", "poolside-v1")
"""The parsers of arguments as pairs of keys and values."""
_PAIR_TAGS: Final = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")


class BuiltinTypes:
    """The types of arguments as the builtin parsers understand them."""

    nulls = True
    """The word null is null: the notations have no quotes."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = tools

    def value(self, tool: str, key: str, text: str) -> Value:
        """Return the value of a text for the parameter of a tool."""
        return typed_exactly(text, self._types(tool, key))

    def only_text(self, tool: str, key: str) -> bool:
        """Return whether the parameter takes strings alone."""
        return not any(each in _PLAIN_TYPES for each in self._types(tool, key))

    def _types(self, tool: str, key: str) -> Sequence[str]:
        properties: Mapping[str, Any] = tool_schema.properties_of(tool, self._tools)
        return tool_schema.types_of(properties.get(key, {}))


class MendedTypes(BuiltinTypes):
    """The types of arguments in a notation whose parser mends calls with missing tags.

    Only a complete value shows that no tag is missing around it.
    """

    def value(self, tool: str, key: str, text: str) -> Value:
        """Return the value of a text. Raises UnreadableJsonError for a text with tags, around which others may miss."""
        if any(tag in text for tag in _PAIR_TAGS):
            raise UnreadableJsonError(text)
        return super().value(tool, key, text)

    def only_text(self, tool: str, key: str) -> bool:  # noqa: ARG002
        """Return False, so that texts are complete before they are sent."""
        return False


def _builtin_layouts() -> Mapping[str, OutputLayout]:
    layouts = dict(CALL_LAYOUTS)
    # The parser takes the token before it.
    layouts["glimmer"] = replace(layouts["glimmer"], call_start=CALLS)
    # These parsers do not read the ids that models write: the numbers in them begin anew in each answer.
    layouts = {name: replace(each, json=replace(each.json, id="")) for name, each in layouts.items()}
    for name in _PAIRS:
        tagged = layouts[name].tagged
        # One line end on each side belongs to the notation, though models need not write it.
        lines = replace(tagged, before_value=f"{tagged.before_value}\n", after_value=f"\n{tagged.after_value}")
        layouts[name] = replace(layouts[name], tagged=lines)
    return MappingProxyType(layouts)


_BUILTIN_LAYOUTS: Final = _builtin_layouts()


def of_parser(name: str, tools: Sequence[Tool]) -> Notation | None:
    """Return the notation that the builtin parser of a name reads. None: it reads none, or none that is known."""
    layout = _BUILTIN_LAYOUTS.get(name)
    if layout is None:
        return None
    return Notation(layout=layout, types=MendedTypes(tools) if name in _PAIRS else BuiltinTypes(tools))


def of_layout(layout: OutputLayout, tools: Sequence[Tool]) -> Notation:
    """Return the notation of the layout that the chat template of a model file implies."""
    return Notation(layout=layout, types=Schemas(tools))


def of_go_template(tools: Sequence[Tool]) -> Notation:
    """Return the notation of models with a Go template: JSON objects, wherever they stand behind the tag."""
    return Notation(layout=_GO_LAYOUT, types=Schemas(tools), searches=True)
