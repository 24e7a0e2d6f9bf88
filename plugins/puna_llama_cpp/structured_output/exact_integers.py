"""Schemas that list integers which no float represents, such as ids of twenty digits.

llguidance reads every number of a schema as a float, and would enforce the nearest one instead. So the path from the
root of the schema to such a number is written as grammar rules, in which the number is a literal text. Subschemas
beside the path stay JSON schema (`%json`). The path may lead through closed objects, arrays, anyOf, single allOf and
references; elsewhere the number is refused.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from puna.backend import InvalidRequestError
from puna_llama_cpp.structured_output.objects import make_resolver

_MAX_EXACT_INTEGER: Final = 2**53
"""Up to this number every integer is exact as a float."""
# The name under which the whole schema is found once a grammar rule is the root.
_ROOT: Final = "root"
# Keywords that constrain nothing.
_ANNOTATIONS: Final = frozenset(
    ("title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly")
)
# Keywords that hold definitions for references.
_DEFINITION_KEYWORDS: Final = frozenset(("$defs", "definitions", "$schema", "$id"))
_PYTHON_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def needs_exact_numbers(schema: object) -> bool:
    """Return whether a schema lists an integer that no float represents."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [each for key, each in value.items() if key not in _ANNOTATIONS]
            if any(_not_a_float(value[key]) for key in ("const", "enum") if key in value):
                return True
        elif isinstance(value, list):
            waiting += value
    return False


def exact_grammar(schema: dict[str, Any], guidance: Mapping[str, Any], number: int = 0) -> tuple[str, list[str]]:
    """Return the Lark expression of a schema, and the rules that it needs. The rules' names contain `number`.

    Raises InvalidRequestError if the path to such an integer cannot be written as rules.
    """
    writer = _GrammarWriter(schema, guidance, number)
    start = writer.value(schema)
    space = json.dumps(guidance["whitespace_pattern"])[1:-1].replace("\\\\", "\\")
    return start, [*writer.rules, f"{writer.space[:-1]}: /{space}/"]


def _not_a_float(value: object) -> bool:
    if isinstance(value, list | dict):
        return any(map(_not_a_float, value.values() if isinstance(value, dict) else value))
    return (
        isinstance(value, int)
        and abs(value) > _MAX_EXACT_INTEGER
        and (abs(value) > 10**300 or int(float(value)) != value)
    )


class _GrammarWriter:
    """Writes values as expressions, and references as rules."""

    def __init__(self, root: dict[str, Any], guidance: Mapping[str, Any], number: int) -> None:
        self._number = number
        self.space = f"EXACT_SPACE_{number}?"
        self._root = root
        self._resolve = make_resolver(root)
        self._guidance = guidance
        self._rebase_references = _rebase_references(root)
        self._names: dict[str, str] = {}
        self.rules: list[str] = []

    def value(self, schema: object) -> str:
        """Return the expression of a value."""
        if not isinstance(schema, dict) or not self._reaches_exact_number(schema, set()):
            return self._plain(schema)
        keys = schema.keys() - _ANNOTATIONS - _DEFINITION_KEYWORDS
        if keys == {"$ref"}:
            return self._reference(schema)
        # A list of values is complete in itself, so `type` can only remove values from it.
        if keys <= {"const", "enum", "type"}:
            return self._enumeration(schema)
        if keys == {"anyOf"}:
            return f"({' | '.join(map(self.value, schema['anyOf']))})"
        if keys == {"allOf"} and len(schema["allOf"]) == 1:
            return self.value(schema["allOf"][0])
        kind = schema.get("type")
        if keys <= {"type", "items", "minItems", "maxItems"} and kind == "array":
            return self._array(schema)
        # Members of an open object have any names and no order, which rules cannot follow.
        closed = schema.get("additionalProperties") is False
        if keys <= {"type", "properties", "required", "additionalProperties"} and kind in ("object", None) and closed:
            return self._object(schema)
        raise InvalidRequestError(
            'JSON schema cannot be enforced: "const" or "enum" with a number beyond 2^53 below '
            + ", ".join(sorted(keys - {"type", "properties", "required", "items"}))
        )

    def _reaches_exact_number(self, schema: object, seen: set[int]) -> bool:
        """Return whether a schema, or any schema that it refers to, lists an integer that no float represents."""
        # Schemas may refer to themselves.
        if id(schema) in seen:
            return False
        seen.add(id(schema))
        if isinstance(schema, list):
            return any(self._reaches_exact_number(each, seen) for each in schema)
        if not isinstance(schema, dict):
            return False
        if any(_not_a_float(schema[key]) for key in ("const", "enum") if key in schema):
            return True
        inner = [
            value for key, value in schema.items() if key not in _ANNOTATIONS | _DEFINITION_KEYWORDS | {"const", "enum"}
        ]
        if "$ref" in schema:
            inner.append(self._resolve({"$ref": schema["$ref"]}))
        return any(self._reaches_exact_number(each, seen) for each in inner)

    def _plain(self, schema: object) -> str:
        if not isinstance(schema, dict):
            return f"%json {json.dumps(schema)}"
        document = {key: value for key, value in schema.items() if key not in _DEFINITION_KEYWORDS}
        if '"$ref"' in json.dumps(document):
            document = _rebase_references(document) | {"$defs": {_ROOT: self._rebase_references}}
        return f"%json {json.dumps({**document, 'x-guidance': self._guidance})}"

    def _reference(self, schema: dict[str, Any]) -> str:
        reference = schema["$ref"]
        if reference not in self._names:
            target = self._resolve({"$ref": reference})
            if isinstance(target, dict) and "$ref" in target:
                raise InvalidRequestError(f'JSON schema cannot be enforced: the reference "{reference}"')
            # Named before its body is written, so that a reference within the body finds the name and the recursion
            # ends.
            self._names[reference] = name = f"exact_{self._number}_named{len(self._names)}"
            self.rules.append(f"{name}: {self.value(target)}")
        return self._names[reference]

    def _enumeration(self, schema: dict[str, Any]) -> str:
        kinds = schema.get("type", list(_PYTHON_TYPES))
        types = tuple(
            each for kind in (kinds if isinstance(kinds, list) else [kinds]) for each in _PYTHON_TYPES.get(kind, ())
        )
        values = [schema["const"]] if "const" in schema else schema["enum"]
        values = [value for value in values if isinstance(value, types)]
        large = [json.dumps(json.dumps(each, ensure_ascii=False)) for each in values if _not_a_float(each)]
        rest = [each for each in values if not _not_a_float(each)]
        return f"({' | '.join([*large, *([self._plain({'enum': rest})] if rest else [])])})"

    def _array(self, schema: dict[str, Any]) -> str:
        one = self.value(schema.get("items", {}))
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        # Lark counts with ~n..m; without an upper limit the least number is written out.
        more = f'({self.space} "," {self.space} {one})'
        count = f"~{max(least - 1, 0)}..{most - 1}" if most is not None else "*"
        if most is None and least > 1:
            more, count = f"{more}~{least - 1} {more}", "*"
        filled = f"{one} {more}{count} {self.space}"
        inside = '""' if most == 0 else filled if least else f"({filled})?"
        return f'"[" {self.space} {inside} "]"'

    def _object(self, schema: dict[str, Any]) -> str:
        """Return the expression of an object whose members come in the schema's order."""
        required, properties = schema.get("required") or [], schema.get("properties") or {}
        space = self.space
        names = {key: json.dumps(json.dumps(key, ensure_ascii=False)) for key in properties}
        pairs = [
            (f'{names[key]} {space} ":" {space} {self.value(each)} {space}', key)
            for key, each in properties.items()
            if each is not False
        ]
        # Two rules for each member, built from the last to the first: `after` continues behind another member and
        # begins with a comma, `first` continues at the beginning.
        after, first = '""', '""'
        for pair, key in reversed(pairs):
            follow = f'("," {self.space} {pair} {after})'
            begin = f"({pair} {after})"
            after, first = (
                (follow, begin) if key in required else (self._add_rule(f"{follow} | {after}"), f"({begin} | {first})")
            )
            after, first = self._add_rule(after), self._add_rule(first)
        return f'"{{" {self.space} {first} "}}"'

    def _add_rule(self, expression: str) -> str:
        self.rules.append(f"exact_{self._number}_part{len(self.rules)}: {expression}")
        return self.rules[-1].partition(":")[0]


def _rebase_references(schema: Any) -> Any:  # noqa: ANN401 (any JSON)
    """Return a schema whose references to the root point to the definition that now holds the root."""
    if isinstance(schema, list):
        return [_rebase_references(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"#/$defs/{_ROOT}{value[1:]}"
        if key == "$ref" and isinstance(value, str) and value[:1] == "#"
        else value
        if key in ("const", "enum", "default", "examples")
        else _rebase_references(value)
        for key, value in schema.items()
    }
