"""Keywords of objects and arrays that llguidance does not know, expressed by keywords that it knows."""

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from puna.backend import InvalidRequestError
from puna_llama_cpp.structured_output.formats import format_pattern

Resolve: TypeAlias = Callable[[object], Any]
"""Follows a reference if a schema consists of nothing else, and returns any other schema unchanged."""
_ANNOTATIONS: Final = frozenset(("title", "description", "$comment", "examples", "default", "deprecated"))
# Distinct values of a uniqueItems array: n values have 2^n sets.
_MAX_SET_VALUES: Final = 8


def rewrite_property_names(schema: dict[str, Any], resolve: Resolve) -> None:
    """Express `propertyNames` by other keywords. Raises InvalidRequestError if that is not possible."""
    if "propertyNames" not in schema:
        return
    names = resolve(schema.pop("propertyNames"))
    if isinstance(names, dict):
        names = {key: value for key, value in names.items() if key not in _ANNOTATIONS}
    if names is True or names == {} or names == {"type": "string"}:
        return
    other = schema.get("additionalProperties", True)
    # No name is allowed, so that only the empty object is left.
    if names is False:
        schema |= {"additionalProperties": False}
        schema.pop("properties", None)
        return
    if not isinstance(names, dict) or "patternProperties" in schema:
        raise InvalidRequestError('JSON schema cannot be enforced: "propertyNames" of this kind')
    names = _simplify_names(names, resolve)
    listed = schema.get("properties")
    known = listed if isinstance(listed, dict) else {}
    choices = [names["const"]] if names.keys() == {"const"} else names.get("enum")
    if isinstance(choices, list) and len(names) == 1:
        texts = [name for name in choices if isinstance(name, str)]
        schema["properties"] = {name: known.get(name, other) for name in texts if known.get(name, other) is not False}
        schema["additionalProperties"] = False
        return
    pattern = _names_pattern(names)
    if pattern is None or known:
        raise InvalidRequestError('JSON schema cannot be enforced: "propertyNames" of this kind')
    schema["patternProperties"] = {pattern: other}
    schema["additionalProperties"] = False


def _names_pattern(names: Mapping[str, Any]) -> str | None:
    """Return one pattern for all names that a schema allows; None if the schema says more than one pattern can."""
    if names.keys() == {"pattern"} and isinstance(names["pattern"], str):
        return str(names["pattern"])
    if names.keys() == {"format"}:
        return format_pattern(names["format"])
    parts = names.get("allOf")
    if names.keys() == {"allOf"} and isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], dict):
        return _names_pattern(parts[0])
    least, most = names.get("minLength", 0), names.get("maxLength", "")
    if names.keys() <= {"minLength", "maxLength"} and isinstance(least, int) and (most == "" or isinstance(most, int)):
        return f"^(?s:.{{{least},{most}}})$"
    return None


def _simplify_names(names: dict[str, Any], resolve: Resolve) -> dict[str, Any]:
    """Return a schema of names without conditions that every name meets, and with a union of lists as one list."""
    names = {key: value for key, value in names.items() if (key, value) != ("type", "string")}
    if "pattern" in names:
        names.pop("format", None)  # a schema with both writes the format as a pattern too
    options = names.get("anyOf")
    if names.keys() == {"anyOf"} and isinstance(options, list):
        lists = [_listed_values(resolve(option)) for option in options]
        if all(lists):
            return {"enum": [json.loads(text) for values in lists for text in sorted(values)]}
    return names


def list_required_properties(schema: dict[str, Any]) -> None:
    """List required properties that are not listed. An object that is closed around its list could not have them."""
    required, listed = schema.get("required"), schema.get("properties")
    if isinstance(required, list) and isinstance(listed, dict):
        schema["properties"] = listed | {name: {} for name in required if isinstance(name, str) and name not in listed}


def rewrite_unique_items(schema: dict[str, Any], resolve: Resolve) -> None:
    """Enforce `uniqueItems` of a few listed values by listing their sets, each in the order of the values."""
    if not schema.get("uniqueItems"):
        schema.pop("uniqueItems", None)  # False constrains nothing, but llguidance refuses the keyword.
        return
    most = schema.get("maxItems")
    if isinstance(most, int) and most <= 1:
        del schema["uniqueItems"]
        return
    items = resolve(schema.get("items"))
    values = items.get("enum", [items["const"]] if "const" in items else None) if isinstance(items, dict) else None
    if isinstance(items, dict) and items.get("type") == "boolean" and values is None:
        values = [False, True]
    if not isinstance(values, list) or len(values) > _MAX_SET_VALUES or "prefixItems" in schema:
        return  # llguidance refuses the keyword by its name
    least = schema.get("minItems", 0)
    sizes = range(max(least, 0), min(most, len(values)) + 1 if isinstance(most, int) else len(values) + 1)
    sets = [list(chosen) for size in sizes for chosen in itertools.combinations(_without_duplicates(values), size)]
    for keyword in ("uniqueItems", "items", "minItems", "maxItems", "type"):
        schema.pop(keyword, None)
    schema["enum"] = sets


def _without_duplicates(values: Sequence[Any]) -> list[Any]:
    return [json.loads(text) for text in dict.fromkeys(json.dumps(value, sort_keys=True) for value in values)]


def rewrite_one_of(schema: dict[str, Any], resolve: Resolve) -> None:
    """Turn `oneOf` of objects into `anyOf`, where required properties can make the objects mutually exclusive."""
    options = schema.get("oneOf")
    if not isinstance(options, list) or len(options) < 2 or "anyOf" in schema:
        return
    objects = [dict(option) if isinstance(option := resolve(each), dict) else {} for each in options]
    if not all(isinstance(each.get("properties"), dict) and not each.keys() & _OPENING for each in objects):
        return
    if any(each.get("type", "object") != "object" for each in objects):
        return
    required_names = [set(each.get("required") or ()) for each in objects]
    # Ordered pairs: what keeps objects of the first option from fitting the second may not work the other way around.
    for one, other in itertools.permutations(range(len(objects)), 2):
        name = _distinguishing_property(objects[one], objects[other], resolve)
        if name is None:
            return
        if name:
            required_names[one].add(name)
    del schema["oneOf"]
    # Without a type, each option would allow everything that is not an object, and so several of them at once.
    closed = {"type": "object", "additionalProperties": False}
    schema["anyOf"] = [
        each
        | closed
        | {
            "required": [name for name in each["properties"] if name in names]
            + sorted(names - each["properties"].keys())
        }
        for each, names in zip(objects, required_names, strict=True)
    ]


# Keywords through which an object may have properties that it does not list.
_OPENING: Final = frozenset(("patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "allOf", "$ref"))


def _distinguishing_property(one: dict[str, Any], other: dict[str, Any], resolve: Resolve) -> str | None:
    """Return a property whose presence keeps an object of one schema from fitting the other.

    "": no object fits both in any case. None: there is no such property.
    """
    # An open object may have any property of the other option as well.
    if one.get("additionalProperties", False) is not False:
        return None
    own_properties, other_properties = one["properties"], other["properties"]
    if set(other.get("required") or ()) - own_properties.keys():
        return ""
    for name in own_properties.keys() & other_properties.keys():
        left, right = _listed_values(resolve(own_properties[name])), _listed_values(resolve(other_properties[name]))
        if left and right and not left & right:
            return str(name)
    if other.get("additionalProperties") is False and (
        more := [name for name in own_properties if name not in other_properties]
    ):
        return str(more[0])
    return None


def _listed_values(schema: object) -> frozenset[str]:
    """Return the values that a schema lists, as JSON texts."""
    if not isinstance(schema, dict):
        return frozenset()
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return frozenset(json.dumps(value, sort_keys=True) for value in values) if isinstance(values, list) else frozenset()


_TOKEN = re.compile(r"~([01])")


def make_resolver(root: object) -> Resolve:
    """Return a function that follows references within a schema, at most twenty in a row."""

    def resolve(schema: object) -> Any:  # noqa: ANN401 (any JSON)
        # Bounded, since references may form a cycle.
        for _ in range(20):
            if not (isinstance(schema, dict) and isinstance(schema.get("$ref"), str)):
                return schema
            path = schema["$ref"].removeprefix("#")
            # Keywords beside $ref constrain as well, so that schema is more than a reference. Nothing is fetched from
            # elsewhere.
            if schema["$ref"][:1] != "#" or schema.keys() - _ANNOTATIONS != {"$ref"}:
                return schema
            found = root
            for part in path.split("/")[1:]:
                key = _TOKEN.sub(lambda match: "~/"[int(match[1])], part)
                if isinstance(found, dict) and key in found:
                    found = found[key]
                else:
                    return schema
            schema = found
        return schema

    return resolve
