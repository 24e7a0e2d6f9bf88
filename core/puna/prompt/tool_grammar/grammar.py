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
from puna.prompt.tool_grammar.literals import LiteralGrammar

_SPACE: Final = "CALL_SPACE?"
"""The rule of white space between the parts of a JSON call."""
_MOST_SPACE: Final = 200
"""Characters of white space in a row in an argument that is a plain text. Some models write white space without end."""
_ROOT: Final = "tool"


def offered(tools: Sequence[Tool], choice: ToolChoice) -> tuple[Tool, ...]:
    """Return the tools that the model sees. Raises InvalidRequestError if the tool that must be called is missing."""
    if choice.mode == "none":
        return ()
    if not choice.name:
        return tuple(tools)
    named = tuple(tool for tool in tools if tool.name == choice.name)
    if not named:
        raise InvalidRequestError(f"the tool {quote(choice.name)} is to be called, and is not among the tools")
    return named


def behind_tag(tools: Sequence[Tool], tag: str, special_tokens: Sequence[str] = ()) -> Constraint:
    """Return the grammar of a call behind a tag, as the parser for Go templates reads it.

    `special_tokens` are texts that may be special tokens of the model.
    """
    call = _call(tools, JsonCall())
    # A bracket begins the call itself. Models write a line end behind every other tag.
    if tag == "{":
        return _either([[call]], special_tokens)
    # A tag that ends with a bracket begins a JSON array, which must be closed.
    before, after = (tag, "]") if tag.endswith("[") else (tag + "\n", "")
    return _either([[before, call, after]], special_tokens)


def from_layout(tools: Sequence[Tool], layout: OutputLayout, special_tokens: Sequence[str] = ()) -> Constraint | None:
    """Return the grammar of a call in a layout; None: no grammar can demand it.

    `special_tokens` are texts that may be special tokens of the model.
    """
    names = layout.json
    before, after = layout.section_start + layout.call_start, layout.call_end + layout.section_end
    match layout.call_syntax:
        case CallSyntax.JSON if names.name and names.arguments and "." not in names.name + names.arguments:
            opening, closing = ("[", "]") if names.in_array else ("", "")
            return _either([[before + opening, _call(tools, names), closing + after]], special_tokens)
        case CallSyntax.TAGGED_JSON:
            return _either([_tagged_json(tool, layout.tagged, before, after) for tool in tools], special_tokens)
        # A value ends where its marker begins, so the marker needs two characters that can be kept out of the value.
        case CallSyntax.TAGGED if (
            not (layout.tagged.before_id or layout.tagged.after_attributes)
            and len(layout.tagged.after_value.strip()) > 1
        ):
            prefix = layout.recipient_prefix
            to = [f"{prefix}{tool.name}" if prefix else "" for tool in tools]
            alternatives = [
                _tagged(tool, layout.tagged, each + before, after, special_tokens)
                for tool, each in zip(tools, to, strict=True)
            ]
            return _either(alternatives, special_tokens)
        case CallSyntax.BARE_KEYS | CallSyntax.PYTHON if layout.literals is not None:
            return _notation_calls(tools, layout, layout.literals, special_tokens)
    return None


Part: TypeAlias = "str | dict[str, Any] | Raw"
"""A part of an answer: a fixed text, the schema of a JSON value, or an expression of the grammar."""


class Raw(str):
    """An expression of the grammar."""

    __slots__ = ()


def _either(
    alternatives: Sequence[Sequence[Part]], special_tokens: Sequence[str], more: Sequence[str] = ()
) -> Constraint:
    """Return the grammar of an answer with several alternatives; `more` are rules that its expressions use."""
    rules: list[str] = []
    starts = []
    for alternative in alternatives:
        names = []
        for part in alternative:
            # An empty text has no expression in Lark.
            if part != "":
                names.append(f"part{len(rules)}")
                rules.append(f"{names[-1]}: {_expression(part, special_tokens)}")
        starts.append(" ".join(names))
    space = [f"{_SPACE[:-1]}: /( |\\n{{1,2}}[ \\t]{{0,20}})/"] if any(_SPACE in rule for rule in rules) else []
    return Constraint("lark", "\n".join([f"start: {' | '.join(starts)}", *rules, *more, *space]))


def _expression(part: Part, special_tokens: Sequence[str]) -> str:
    if isinstance(part, Raw):
        return part
    return _fixed_text(part, special_tokens) if isinstance(part, str) else f"%json {json.dumps(part)}"


def _fixed_text(text: str, special_tokens: Sequence[str]) -> str:
    """Return the expression of a fixed text. The backend decides whether one of the texts in it is a token."""
    # The longest first, since a token may begin like another one.
    longest = sorted(map(re.escape, special_tokens), key=len, reverse=True)
    parts = re.split(f"({'|'.join(longest)})", text) if special_tokens else [text]
    return " ".join(f"{'%mark ' * (part in special_tokens)}{json.dumps(part)}" for part in parts if part)


def _tagged_json(tool: Tool, tagged: TaggedCall, before: str, after: str) -> list[Part]:
    """Return the parts of a call whose arguments are one JSON object."""
    name = f"{tagged.before_name}{tool.name}{tagged.after_name}"
    arguments = f"{tagged.separator}{tagged.before_arguments}"
    # The id is the number of the call if clients get it joined to the name, as for Kimi. Mistral's ids have nine
    # letters and digits.
    made = Raw("/[0-9]{1,3}/" if "{name}" in tagged.id_template else "/[a-zA-Z0-9]{9}/")
    parts: list[Part]
    if tagged.id_first:
        parts = [before + tagged.before_id, made, f"{tagged.after_id}{name}{arguments}"]
    elif tagged.before_id:
        parts = [f"{before}{name}{tagged.before_id}", made, f"{tagged.after_id}{arguments}"]
    else:
        parts = [f"{before}{name}{arguments}"]
    return [*parts, _parameters(tool), f"{tagged.after_arguments}{tagged.close}{after}"]


def _tagged(tool: Tool, tagged: TaggedCall, before: str, after: str, special_tokens: Sequence[str]) -> list[Part]:
    """Return the parts of a call whose arguments stand between markers, in the schema's order."""
    name = f"{before}{tagged.before_name}{tool.name}{tagged.after_name}{tagged.separator}{tagged.before_arguments}"
    schema = _parameters(tool)
    parts: list[Part] = [name]
    required = schema.get("required") or ()
    for key, each in (schema.get("properties") or {}).items():
        plain = isinstance(each, dict) and each.get("type") == "string" and "enum" not in each
        listed = isinstance(each, dict) and each.get("type") == "string" and "enum" in each
        json_mark = tagged.before_json or tagged.before_value
        opening = f"{tagged.before_key}{key}{tagged.after_key}{tagged.before_value if plain or listed else json_mark}"
        if plain:
            value = _text_before(tagged.after_value, special_tokens)
        elif listed:
            value = f"({' | '.join(_fixed_text(f'{one}{tagged.after_value}', special_tokens) for one in each['enum'])})"
        else:
            value = f"%json {json.dumps(_property(schema, key))} {_fixed_text(tagged.after_value, special_tokens)}"
        expression = f"{_fixed_text(opening, special_tokens)} {value}"
        # The order of the schema is kept, since a grammar of all orders would grow factorially.
        parts.append(Raw(expression if key in required else f"({expression})?"))
    return [*parts, f"{tagged.after_arguments}{tagged.close}{after}"]


def _text_before(marker: str, special_tokens: Sequence[str]) -> str:
    """Return the expression of a text and the marker behind it. The text cannot hold the start of the marker."""
    first, second = _escaped(marker.strip()[0]), _escaped(marker.strip()[1])
    spaces = rf"\s{{0,{_MOST_SPACE}}}"
    word = rf"([^{first}\s]|{first}+[^{first}{second}\s]|{first}+\s)"
    text = f"{spaces}({word}{spaces})*"
    spelled = f"/{text}{_escaped(marker)}/"
    fixed = _fixed_text(marker, special_tokens)
    # A model may write the marker as one special token or spell it out in text tokens.
    return f"({spelled} | /{text}/ {fixed})" if "%mark" in fixed else spelled


def _notation_calls(
    tools: Sequence[Tool], layout: OutputLayout, literals: Literals, special_tokens: Sequence[str]
) -> Constraint | None:
    """Return the grammar of calls whose arguments have a notation of their own; None: it cannot hold some name."""
    quotes_are_tokens = len(literals.quote) > 1
    special_tokens = (*special_tokens, literals.quote) if quotes_are_tokens else special_tokens
    values = LiteralGrammar(
        literals, lambda text: _fixed_text(text, special_tokens), quotes_are_tokens=quotes_are_tokens
    )
    opening, between, closing = ("(", "=", ")") if layout.call_syntax is CallSyntax.PYTHON else ("{", ":", "}")
    alternatives: list[list[Part]] = []
    for tool in tools:
        arguments = values.members(_parameters(tool), lambda key: f"{key}{between}")
        # A name with other characters would end early for the parser.
        if arguments is None or not re.fullmatch(r"[\w.-]+", tool.name):
            return None
        name = f"{layout.section_start}{layout.call_start}{layout.tagged.before_name}{tool.name}{opening}"
        alternatives.append([name, Raw(arguments), f"{closing}{layout.call_end}{layout.section_end}"])
    return _either(alternatives, special_tokens, values.rules)


def _escaped(text: str) -> str:
    return re.escape(text).replace("\\\n", r"\n").replace("/", r"\/")


def _parameters(tool: Tool) -> dict[str, Any]:
    """Return the schema of a call's arguments. They are an object, whatever type the tool's schema has."""
    parameters = json.loads(tool.parameters) if tool.parameters else {}
    if not isinstance(parameters, dict):
        return {"type": "object"}
    given = parameters.get("type")
    # A reference may lead to an object, beside which a type would be one more condition.
    if given == "object" or (given is None and "$ref" in parameters):
        return parameters
    return {**parameters, "type": "object"}


def _property(tool: dict[str, Any], key: str) -> object:
    """Return the schema of one argument as a document of its own.

    References in it count from the root of the tool's schema, so a schema with references takes that root along.
    """
    schema = tool["properties"][key]
    # Most schemas have no references and stay small: the root is taken along only where it is needed.
    if '"$ref"' not in json.dumps(schema):
        return schema
    root = _rebased(tool, f"#/$defs/{_ROOT}")
    return {"$defs": {_ROOT: root}, "$ref": f"#/$defs/{_ROOT}/properties/{_pointer(key)}"}


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _rebased(schema: object, to: str) -> Any:  # noqa: ANN401 (any JSON)
    """Return a schema whose references name the new place of its root."""
    if isinstance(schema, list):
        return [_rebased(each, to) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {}
    for key, value in schema.items():
        # Values of these keywords are data: "$ref" in them is an ordinary key.
        if key in ("const", "enum", "default", "examples"):
            moved[key] = value
        elif key == "$ref" and isinstance(value, str) and value.startswith("#"):
            moved[key] = to + value[1:]
        elif key in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, dict):
            moved[key] = {name: _rebased(each, to) for name, each in value.items()}
        else:
            moved[key] = _rebased(value, to)
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
