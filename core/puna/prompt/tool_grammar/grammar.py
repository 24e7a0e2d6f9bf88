"""Writes the grammar of an answer that must be a tool call, in the syntax in which the model writes calls.

The grammar is in llguidance's dialect of Lark. It has one alternative for each tool, and each part of an alternative
has a rule: a fixed text, a JSON value with a schema (`%json`), or an expression. Each schema of a tool is a
document of its own, so references within it stay valid. A fixed text that may be a special token of the model is
written `%mark "..."`: the backend puts the token there if there is one, and the text otherwise.

What the parser of a layout cannot read, a grammar must not allow: a plain text between markers cannot hold the start of
the marker behind it, and white space is bounded, because some models would write it without end.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from puna.backend import Constraint
from puna.errors import InvalidRequestError
from puna.go.json import quote
from puna.messages import Tool, ToolChoice
from puna.prompt.layout import CallSyntax, JsonCall, Literals, OutputLayout, TaggedCall
from puna.prompt.tool_grammar.literals import Writer

_SPACE: Final = "CALL_SPACE?"
"""The rule of white space between the parts of a JSON call."""
_MOST_SPACE: Final = 200
"""Characters of white space in a row in an argument that is a plain text. Some models write white space without end."""
_ROOT: Final = "tool"


def offered(tools: Sequence[Tool], choice: ToolChoice) -> tuple[Tool, ...]:
    """Return the tools that the model sees. Raises InvalidRequestError if the one that must be called is missing."""
    if choice.mode == "none":
        return ()
    if not choice.name:
        return tuple(tools)
    named = tuple(tool for tool in tools if tool.name == choice.name)
    if not named:
        raise InvalidRequestError(f"the tool {quote(choice.name)} is to be called, and is not among the tools")
    return named


def behind_tag(tools: Sequence[Tool], tag: str, marks: Sequence[str] = ()) -> Constraint:
    """Return the grammar of a call behind a tag, as the parser for Go templates reads it.

    `marks` are texts that may be special tokens.
    """
    call = _call(tools, JsonCall())
    if tag == "{":
        return _either([[call]], marks)
    before, after = (tag, "]") if tag.endswith("[") else (tag + "\n", "")
    return _either([[before, call, after]], marks)


def from_layout(tools: Sequence[Tool], layout: OutputLayout, marks: Sequence[str] = ()) -> Constraint | None:
    """Return the grammar of a call in a layout; None: no grammar can demand it.

    `marks` are texts that may be special tokens.
    """
    names = layout.json
    before, after = layout.section_start + layout.call_start, layout.call_end + layout.section_end
    match layout.call_syntax:
        case CallSyntax.JSON if names.name and names.arguments and "." not in names.name + names.arguments:
            opening, closing = ("[", "]") if names.in_array else ("", "")
            return _either([[before + opening, _call(tools, names), closing + after]], marks)
        case CallSyntax.TAGGED_JSON:
            return _either([_tagged_json(tool, layout.tagged, before, after) for tool in tools], marks)
        case CallSyntax.TAGGED if (
            not (layout.tagged.before_id or layout.tagged.after_attributes)
            and len(layout.tagged.after_value.strip()) > 1
        ):
            prefix = layout.recipient_prefix
            to = [f"{prefix}{tool.name}" if prefix else "" for tool in tools]
            ways = [
                _tagged(tool, layout.tagged, each + before, after, marks) for tool, each in zip(tools, to, strict=True)
            ]
            return _either(ways, marks)
        case CallSyntax.BARE_KEYS | CallSyntax.PYTHON if layout.literals is not None:
            return _literal(tools, layout, layout.literals, marks)
    return None


Part: TypeAlias = "str | dict[str, Any] | Raw"
"""A part of an answer: a fixed text, the schema of a JSON value, or an expression of the grammar."""


class Raw(str):
    """An expression of the grammar."""

    __slots__ = ()


def _either(ways: Sequence[Sequence[Part]], marks: Sequence[str], more: Sequence[str] = ()) -> Constraint:
    """Return the grammar of an answer with several alternatives; `more` are rules that its expressions use."""
    rules: list[str] = []
    starts = []
    for way in ways:
        names = []
        for part in way:
            if part != "":
                names.append(f"part{len(rules)}")
                rules.append(f"{names[-1]}: {_expression(part, marks)}")
        starts.append(" ".join(names))
    space = [f"{_SPACE[:-1]}: /( |\\n{{1,2}}[ \\t]{{0,20}})/"] if any(_SPACE in rule for rule in rules) else []
    return Constraint("lark", "\n".join([f"start: {' | '.join(starts)}", *rules, *more, *space]))


def _expression(part: Part, marks: Sequence[str]) -> str:
    if isinstance(part, Raw):
        return part
    return _written(part, marks) if isinstance(part, str) else f"%json {json.dumps(part)}"


def _written(text: str, marks: Sequence[str]) -> str:
    """Return the expression of a fixed text. The backend knows which of the marks in it are special tokens."""
    longest = sorted(map(re.escape, marks), key=len, reverse=True)
    pieces = re.split(f"({'|'.join(longest)})", text) if marks else [text]
    return " ".join(f"{'%mark ' * (piece in marks)}{json.dumps(piece)}" for piece in pieces if piece)


def _tagged_json(tool: Tool, marks: TaggedCall, before: str, after: str) -> list[Part]:
    """Return the parts of a call whose arguments are one JSON object."""
    name = f"{marks.before_name}{tool.name}{marks.after_name}"
    arguments = f"{marks.separator}{marks.before_arguments}"
    # The id is the number of the call if clients get it joined to the name, as for Kimi. Mistral's ids have nine
    # letters and digits.
    made = Raw("/[0-9]{1,3}/" if "{name}" in marks.id_template else "/[a-zA-Z0-9]{9}/")
    parts: list[Part]
    if marks.id_first:
        parts = [before + marks.before_id, made, f"{marks.after_id}{name}{arguments}"]
    elif marks.before_id:
        parts = [f"{before}{name}{marks.before_id}", made, f"{marks.after_id}{arguments}"]
    else:
        parts = [f"{before}{name}{arguments}"]
    return [*parts, _parameters(tool), f"{marks.after_arguments}{marks.close}{after}"]


def _tagged(tool: Tool, marks: TaggedCall, before: str, after: str, special: Sequence[str]) -> list[Part]:
    """Return the parts of a call whose arguments stand between markers, in the schema's order."""
    name = f"{before}{marks.before_name}{tool.name}{marks.after_name}{marks.separator}{marks.before_arguments}"
    schema = _parameters(tool)
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
            value = f"%json {json.dumps(_property(schema, key))} {_written(marks.after_value, special)}"
        expression = f"{_written(opening, special)} {value}"
        parts.append(Raw(expression if key in required else f"({expression})?"))
    return [*parts, f"{marks.after_arguments}{marks.close}{after}"]


def _text_before(mark: str, special: Sequence[str]) -> str:
    """Return the expression of a text and the marker behind it. The text cannot hold the start of the marker."""
    first, second = _escaped(mark.strip()[0]), _escaped(mark.strip()[1])
    spaces = rf"\s{{0,{_MOST_SPACE}}}"
    word = rf"([^{first}\s]|{first}+[^{first}{second}\s]|{first}+\s)"
    text = f"{spaces}({word}{spaces})*"
    spelled = f"/{text}{_escaped(mark)}/"
    written = _written(mark, special)
    return f"({spelled} | /{text}/ {written})" if "%mark" in written else spelled


def _literal(
    tools: Sequence[Tool], layout: OutputLayout, literals: Literals, marks: Sequence[str]
) -> Constraint | None:
    """Return the grammar of calls whose arguments have a notation of their own; None: it cannot hold some name."""
    marked = len(literals.quote) > 1
    marks = (*marks, literals.quote) if marked else marks
    writer = Writer(literals, lambda text: _written(text, marks), marked=marked)
    opening, between, closing = ("(", "=", ")") if layout.call_syntax is CallSyntax.PYTHON else ("{", ":", "}")
    ways: list[list[Part]] = []
    for tool in tools:
        arguments = writer.members(_parameters(tool), lambda key: f"{key}{between}")
        if arguments is None or not re.fullmatch(r"[\w.-]+", tool.name):
            return None
        name = f"{layout.section_start}{layout.call_start}{layout.tagged.before_name}{tool.name}{opening}"
        ways.append([name, Raw(arguments), f"{closing}{layout.call_end}{layout.section_end}"])
    return _either(ways, marks, writer.rules)


def _escaped(text: str) -> str:
    return re.escape(text).replace("\\\n", r"\n").replace("/", r"\/")


def _parameters(tool: Tool) -> dict[str, Any]:
    """Return the schema of a call's arguments. They are an object, whatever type the tool's schema has."""
    parameters = json.loads(tool.parameters) if tool.parameters else {}
    if not isinstance(parameters, dict):
        return {"type": "object"}
    given = parameters.get("type")
    if given == "object" or (given is None and "$ref" in parameters):
        return parameters
    return {**parameters, "type": "object"}


def _property(tool: dict[str, Any], key: str) -> object:
    """Return the schema of one argument as a document of its own.

    References in it count from the root of the tool's schema, so a schema with references takes that root along.
    """
    schema = tool["properties"][key]
    if '"$ref"' not in json.dumps(schema):
        return schema
    root = _moved(tool, f"#/$defs/{_ROOT}")
    return {"$defs": {_ROOT: root}, "$ref": f"#/$defs/{_ROOT}/properties/{_pointer(key)}"}


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _moved(schema: object, to: str) -> Any:  # noqa: ANN401 (any JSON)
    """Return a schema whose references name the new place of its root."""
    if isinstance(schema, list):
        return [_moved(each, to) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {}
    for key, value in schema.items():
        if key in ("const", "enum", "default", "examples"):
            moved[key] = value
        elif key == "$ref" and isinstance(value, str) and value.startswith("#"):
            moved[key] = to + value[1:]
        elif key in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, dict):
            moved[key] = {name: _moved(each, to) for name, each in value.items()}
        else:
            moved[key] = _moved(value, to)
    return moved


def _call(tools: Sequence[Tool], names: JsonCall) -> Raw:
    """Return the expression of a JSON object that calls one of the tools."""

    def member(name: str, value: str) -> str:
        return f'{json.dumps(json.dumps(name))} {_SPACE} ":" {_SPACE} {value}'

    calls = []
    for tool in tools:
        members = [
            member(names.name, json.dumps(json.dumps(tool.name, ensure_ascii=False), ensure_ascii=False)),
            member(names.arguments, f"%json {json.dumps(_parameters(tool))}"),
        ]
        if names.id:
            members.append(member(names.id, '%json {"type": "string"}'))
        inside = f' {_SPACE} "," {_SPACE} '.join(members)
        calls.append(f'"{{" {_SPACE} {inside} {_SPACE} "}}"')
    return Raw(f"({' | '.join(calls)})")
