"""A call that must come: the form of an answer that holds one, as far as the model's way of writing calls is known."""

import json
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from puna.backend import Constraint
from puna.errors import InvalidRequestError
from puna.gojson import quote
from puna.messages import Tool
from puna.prompt.native.form import CallLayout, Form, JsonCall, Literals, TaggedCall
from puna.serving.forced_literals import Writer
from puna.serving.requests import ToolChoice


def offered(tools: Sequence[Tool], choice: ToolChoice) -> tuple[Tool, ...]:
    """Return the tools that the model gets to see. InvalidRequestError: the one that must be called is not there."""
    if choice.mode == "none":
        return ()
    if not choice.name:
        return tuple(tools)
    named = tuple(tool for tool in tools if tool.name == choice.name)
    if not named:
        raise InvalidRequestError(f"the tool {quote(choice.name)} is to be called, and is not among the tools")
    return named


def by_tag(tools: Sequence[Tool], tag: str, marks: Sequence[str] = ()) -> Constraint:
    """Return the form of a call behind a tag, as the generic parser reads it. `marks` may be special tokens."""
    call = _call(tools, JsonCall())
    if tag == "{":
        return Constraint("json_schema", json.dumps(call))
    before, after = (tag, "]") if tag.endswith("[") else (tag + "\n", "")
    return _either([[before, call, after]], marks)


def by_form(tools: Sequence[Tool], form: Form, marks: Sequence[str] = ()) -> Constraint | None:
    """Return the form of a call as a model writes it; None: it cannot be forced. `marks` may be special tokens."""
    names = form.json
    before, after = form.section_start + form.call_start, form.call_end + form.section_end
    match form.layout:
        case CallLayout.JSON if names.name and names.arguments and "." not in names.name + names.arguments:
            opening, closing = ("[", "]") if names.in_array else ("", "")
            return _either([[before + opening, _call(tools, names), closing + after]], marks)
        case CallLayout.TAGGED_JSON if not (form.tagged.before_id or form.tagged.id_first):
            return _either([_tagged_json(tool, form.tagged, before, after) for tool in tools], marks)
        case CallLayout.TAGGED if (
            not (form.tagged.before_id or form.tagged.after_attributes) and len(form.tagged.after_value.strip()) > 1
        ):
            to = {tool.name: f"{form.addressee}{tool.name}" if form.addressee else "" for tool in tools}
            ways = [_tagged(tool, form.tagged, to[tool.name] + before, after, marks) for tool in tools]
            return _either(ways, marks)
        case CallLayout.LOOSE | CallLayout.PYTHON if form.literals is not None:
            return _literal(tools, form, form.literals, marks)
    return None


Part: TypeAlias = "str | dict[str, Any] | Raw"
"""What an answer is made of: a text as it stands, a value that has a schema, or an expression of the grammar."""


class Raw(str):
    """An expression of the grammar."""

    __slots__ = ()


def _either(ways: Sequence[Sequence[Part]], marks: Sequence[str], more: Sequence[str] = ()) -> Constraint:
    """Return the grammar of an answer that goes one of several ways, with more rules if expressions need them."""
    rules: list[str] = []
    starts = []
    for way in ways:
        names = []
        for part in way:
            if part != "":
                names.append(f"part{len(rules)}")
                rules.append(f"{names[-1]}: {_expression(part, marks)}")
        starts.append(" ".join(names))
    return Constraint("lark", "\n".join([f"start: {' | '.join(starts)}", *rules, *more]))


def _expression(part: Part, marks: Sequence[str]) -> str:
    if isinstance(part, Raw):
        return part
    return _written(part, marks) if isinstance(part, str) else f"%json {json.dumps(part)}"


def _written(text: str, marks: Sequence[str]) -> str:
    """Return an expression for a text as it stands; of marks the engine knows whether they are special tokens."""
    longest = sorted(map(re.escape, marks), key=len, reverse=True)
    pieces = re.split(f"({'|'.join(longest)})", text) if marks else [text]
    return " ".join(f"{'%mark ' * (piece in marks)}{json.dumps(piece)}" for piece in pieces if piece)


def _tagged_json(tool: Tool, marks: TaggedCall, before: str, after: str) -> list[Part]:
    """Return a call whose arguments are one JSON object."""
    name = f"{before}{marks.before_name}{tool.name}{marks.after_name}{marks.separator}{marks.before_arguments}"
    return [name, _parameters(tool), f"{marks.after_arguments}{marks.close}{after}"]


def _tagged(tool: Tool, marks: TaggedCall, before: str, after: str, special: Sequence[str]) -> list[Part]:
    """Return a call whose arguments stand each between marks, in the schema's order, the optional ones at will."""
    name = f"{before}{marks.before_name}{tool.name}{marks.after_name}{marks.separator}{marks.before_arguments}"
    schema = _parameters(tool)
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    parts: list[Part] = [name]
    required = schema.get("required") or ()
    for key, each in (schema.get("properties") or {}).items():
        plain = isinstance(each, dict) and each.get("type") == "string" and "enum" not in each
        listed = isinstance(each, dict) and each.get("type") == "string" and "enum" in each
        json_mark = marks.before_json or marks.before_value
        opening = f"{marks.before_key}{key}{marks.after_key}{marks.before_value if plain or listed else json_mark}"
        if plain:
            value = _text_before(marks.after_value, special)
        elif listed:
            value = f"({' | '.join(_written(f'{one}{marks.after_value}', special) for one in each['enum'])})"
        else:
            schema_text = json.dumps({**each, **definitions} if isinstance(each, dict) else each)
            value = f"%json {schema_text} {_written(marks.after_value, special)}"
        expression = f"{_written(opening, special)} {value}"
        parts.append(Raw(expression if key in required else f"({expression})?"))
    return [*parts, f"{marks.after_arguments}{marks.close}{after}"]


def _text_before(mark: str, special: Sequence[str]) -> str:
    """Return an expression for a text and the mark behind it, whose beginning it may not hold."""
    first, second = _escaped(mark.strip()[0]), _escaped(mark.strip()[1])
    text = f"([^{first}]|{first}+[^{first}{second}])*"
    spelled = f"/{text}{_escaped(mark)}/"
    written = _written(mark, special)
    return f"({spelled} | /{text}/ {written})" if "%mark" in written else spelled


def _literal(tools: Sequence[Tool], form: Form, literals: Literals, marks: Sequence[str]) -> Constraint | None:
    """Return calls that hold their arguments in a notation of their own; None: a name cannot stand in it."""
    marked = len(literals.quote) > 1
    marks = (*marks, literals.quote) if marked else marks
    writer = Writer(literals, lambda text: _written(text, marks), marked=marked)
    opening, between, closing = ("(", "=", ")") if form.layout is CallLayout.PYTHON else ("{", ":", "}")
    ways: list[list[Part]] = []
    for tool in tools:
        arguments = writer.members(_parameters(tool), lambda key: f"{key}{between}")
        if arguments is None or not re.fullmatch(r"[\w.-]+", tool.name):
            return None
        name = f"{form.section_start}{form.call_start}{form.tagged.before_name}{tool.name}{opening}"
        ways.append([name, Raw(arguments), f"{closing}{form.call_end}{form.section_end}"])
    return _either(ways, marks, writer.rules)


def _escaped(text: str) -> str:
    return re.escape(text).replace("\\\n", r"\n").replace("/", r"\/")


def _parameters(tool: Tool) -> dict[str, Any]:
    parameters = json.loads(tool.parameters) if tool.parameters else {}
    return parameters if isinstance(parameters, dict) and parameters else {"type": "object"}


def _call(tools: Sequence[Tool], names: JsonCall) -> dict[str, Any]:
    """Return the schema of an object that calls one of the tools."""
    definitions: dict[str, Any] = {}
    calls = []
    for tool in tools:
        parameters = json.loads(tool.parameters) if tool.parameters else {"type": "object"}
        if isinstance(parameters, dict):
            # References in it count from the root.
            definitions |= parameters.pop("$defs", None) or {}
        members = {names.name: {"const": tool.name}, names.arguments: parameters}
        if names.id:
            members[names.id] = {"type": "string"}
        calls.append(
            {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}
        )
    schema: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return schema | ({"$defs": definitions} if definitions else {})
