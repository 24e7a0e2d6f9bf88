"""A call that must come: the form of an answer that holds one, as far as the model's way of writing calls is known."""

import json
from collections.abc import Sequence
from typing import Any

from puna.backend import Constraint
from puna.errors import InvalidRequestError
from puna.gojson import quote
from puna.messages import Tool
from puna.prompt.native.form import CallLayout, Form, JsonCall
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


def by_tag(tools: Sequence[Tool], tag: str) -> Constraint:
    """Return the form of a call behind a tag, as the generic parser reads it."""
    call = _call(tools, JsonCall())
    if tag == "{":
        return Constraint("json_schema", json.dumps(call))
    before, after = (tag, "]") if tag.endswith("[") else (tag + "\n", "")
    return _between(before, call, after)


def by_form(tools: Sequence[Tool], form: Form) -> Constraint | None:
    """Return the form of a call as the model's own template writes it; None: calls of this layout cannot be forced."""
    names = form.json
    if (
        form.layout is not CallLayout.JSON
        or "." in names.name + names.arguments
        or not (names.name and names.arguments)
    ):
        return None
    opening, closing = ("[", "]") if names.in_array else ("", "")
    before = form.section_start + form.call_start + opening
    return _between(before, _call(tools, names), closing + form.call_end + form.section_end)


def _between(before: str, call: dict[str, Any], after: str) -> Constraint:
    parts = [json.dumps(before)] if before else []
    parts.append(f"%json {json.dumps(call)}")
    parts += [json.dumps(after)] if after else []
    return Constraint(
        "lark",
        "start: "
        + " ".join(f"part{index}" for index in range(len(parts)))
        + "".join(f"\npart{index}: {part}" for index, part in enumerate(parts)),
    )


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
