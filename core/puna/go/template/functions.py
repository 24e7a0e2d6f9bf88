"""The functions of templates: Go's and Ollama's."""

import html as html_module
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import quote_plus

from puna.go.template import comparison
from puna.go.template.formatting import printed, sprint
from puna.go.template.printf import sprintf
from puna.go.template.values import (
    MISSING,
    Map,
    Missing,
    Pointer,
    Slice,
    Unsigned,
    Value,
    elements,
    entries,
    methods,
    to_json,
    truth,
    type_name,
    unbox,
)

ParameterType = Literal["reflect.Value", "interface {}", "string"]


class CallError(Exception):
    """A function refuses its arguments. The text is Go's."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function with the types of its parameters and, if it is variadic, of the rest."""

    call: Callable[..., Any]
    parameters: tuple[ParameterType, ...] = ()
    rest: ParameterType | None = None


def _index(item: object, *indexes: object) -> Value:
    item = unbox(item)
    if item is MISSING:
        raise CallError("index of untyped nil")
    for index in indexes:
        index = unbox(index)
        item = _followed(unbox(item), "index")
        if (items := elements(item)) is not None:
            item = _at(items[0], index)
        elif isinstance(item, str):
            # Go's strings are bytes: an index gives one byte as a number.
            item = Unsigned(_at(_bytes(item), index))
        elif (mapping := entries(item)) is not None:
            if index is MISSING:
                raise CallError("value is nil; should be of type string")
            if not isinstance(index, str):
                raise CallError(f"value has type {type_name(index)}; should be string")
            item = mapping[0].get(index, MISSING)
            item = mapping[1].zero() if item is MISSING else item
        else:
            raise CallError(f"can't index item of type {type_name(item)}")
    return item


def _followed(item: object, what: str) -> object:
    if item is MISSING or (isinstance(item, Pointer) and item.target is None):
        raise CallError(f"{what} of nil pointer")
    return item.target if isinstance(item, Pointer) else item


def _at(items: Sequence[Value], index: object) -> Value:
    # `_whole` accepts the length itself, which `slice` needs. For an index Go's reflect panics with the text below.
    number = _whole(index, len(items))
    if number == len(items):
        raise CallError(
            "reflect: slice index out of range"
            if not isinstance(items, bytes)
            else "reflect: string index out of range"
        )
    return items[number]


def _whole(index: object, most: int) -> int:
    if index is MISSING:
        raise CallError("cannot index slice/array with nil")
    # bool is a subclass of int in Python, and Go has no index of that type.
    if not isinstance(index, int) or isinstance(index, bool):
        raise CallError(f"cannot index slice/array with type {type_name(index)}")
    if not 0 <= index <= most:
        raise CallError(f"index out of range: {int(index)}")
    return int(index)


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _slice(item: object, *indexes: object) -> Value:
    item = unbox(item)
    if item is MISSING:
        raise CallError("slice of untyped nil")
    item = _followed(item, "slice")
    if len(indexes) > 3:
        raise CallError(f"too many slice indexes: {len(indexes)}")
    items: Sequence[Any]
    if isinstance(item, str):
        if len(indexes) == 3:
            raise CallError("cannot 3-index slice a string")
        items = _bytes(item)
    elif (found := elements(item)) is not None:
        items = found[0]
    else:
        raise CallError(f"can't slice item of type {type_name(item)}")
    # The indexes given replace the defaults from the left; a third one is the capacity, which only takes part in the
    # check.
    bounds = [0, len(items)]
    for i, index in enumerate(indexes):
        bounds[i:] = [_whole(unbox(index), len(items)), *bounds[i + 1 :]]
    for low, high in pairwise(bounds):
        if low > high:
            raise CallError(f"invalid slice index: {low} > {high}")
    part = items[bounds[0] : bounds[1]]
    if isinstance(item, str):
        return bytes(part).decode("utf-8", "surrogateescape")
    if isinstance(item, Slice):
        return Slice(item.type, None if item.nil else part)
    return bytes(part) if isinstance(item, bytes) else part


def _len(item: object) -> int:
    if item is MISSING:
        raise CallError("reflect: call of reflect.Value.Type on zero Value")
    item = unbox(item)
    if item is MISSING or (isinstance(item, Pointer) and item.target is None):
        raise CallError("len of nil pointer")
    if isinstance(item, str):
        return len(_bytes(item))
    if isinstance(item, Slice | Map):
        return len(item.items)
    if isinstance(item, Mapping | list | tuple | bytes):
        return len(item)
    raise CallError(f"len of type {type_name(item.target if isinstance(item, Pointer) else item)}")


def _call(function: object, *_arguments: object) -> Value:
    function = unbox(function)
    if function is MISSING:
        raise CallError("call of nil")
    raise CallError(f"non-function {{name}} of type {type_name(function)}")


def _escaped(values: Sequence[object]) -> str:
    """Join arguments like print. Each is formatted as an action formats it."""
    return sprint([printed(v) if isinstance(v, Missing) else _pointed(v) for v in values])


def _pointed(value: object) -> object:
    value = None if value is MISSING else value
    return "<no value>" if value is None else value.target if isinstance(value, Pointer) and value.target else value


def _html(*values: object) -> str:
    # Go and Python write different references for quotes, and Go replaces NUL.
    out = html_module.escape(_escaped(values), quote=False)
    return out.replace("\0", "\ufffd").replace('"', "&#34;").replace("'", "&#39;")


_JS_SPECIAL: Final = re.compile(r"""[\\'"<>&=\x00-\x1f\x80-\U0010ffff]""")
_JS: Final = {"\\": r"\\", "'": r"\'", '"': r"\"", "<": r"\u003C", ">": r"\u003E", "&": r"\u0026", "=": r"\u003D"}


def _js(*values: object) -> str:
    def escape(match: re.Match[str]) -> str:
        char = match[0]
        # Printable characters beyond ASCII stay. The pattern matches them since it cannot express what is printable.
        if char in _JS or (char >= "\x80" and char.isprintable()):
            return _JS.get(char, char)
        return f"\\u{ord(char):04X}"

    return _JS_SPECIAL.sub(escape, _escaped(values))


def _urlquery(*values: object) -> str:
    return quote_plus(_bytes(_escaped(values)), safe="~")


def _json(value: object) -> str:
    try:
        return to_json(value)
    # Ollama's function ignores the error of the encoder and prints its empty result.
    except ValueError:
        return ""


def _date(days: int = 0) -> str:
    # The server's local date, as in Ollama.
    return (datetime.now().astimezone() + timedelta(days=days)).strftime("%Y-%m-%d")


def _type_script_type(value: object) -> str:
    method = methods(unbox(value)).get("ToTypeScriptType")
    return method(unbox(value)) if method else "any"


def _plain(value: object) -> object:
    """Return an argument as a parameter of type `interface {}` receives it: MISSING becomes nil."""
    value = unbox(value)
    return None if value is MISSING else value


BUILTINS: Final[Mapping[str, Function]] = MappingProxyType(
    {
        # `and` and `or` stop at the argument that decides, so evaluate handles them.
        "and": Function(lambda *_: None, ("reflect.Value",), "reflect.Value"),
        "or": Function(lambda *_: None, ("reflect.Value",), "reflect.Value"),
        "not": Function(lambda value: not truth(value), ("reflect.Value",)),
        "call": Function(_call, ("reflect.Value",), "reflect.Value"),
        "html": Function(_html, (), "interface {}"),
        "index": Function(_index, ("reflect.Value",), "reflect.Value"),
        "slice": Function(_slice, ("reflect.Value",), "reflect.Value"),
        "js": Function(_js, (), "interface {}"),
        "len": Function(_len, ("reflect.Value",)),
        "print": Function(lambda *values: sprint(values), (), "interface {}"),
        "printf": Function(lambda form, *values: sprintf(form, values), ("string",), "interface {}"),
        "println": Function(lambda *values: sprint(values, line=True), (), "interface {}"),
        "urlquery": Function(_urlquery, (), "interface {}"),
        "eq": Function(comparison.equal, ("reflect.Value",), "reflect.Value"),
        "ne": Function(lambda a, b: not comparison.equal(a, b), ("reflect.Value", "reflect.Value")),
        "lt": Function(comparison.less, ("reflect.Value", "reflect.Value")),
        "le": Function(comparison.less_or_equal, ("reflect.Value", "reflect.Value")),
        "gt": Function(lambda a, b: not comparison.less_or_equal(a, b), ("reflect.Value", "reflect.Value")),
        "ge": Function(lambda a, b: not comparison.less(a, b), ("reflect.Value", "reflect.Value")),
    }
)

FUNCTIONS: Final[Mapping[str, Function]] = MappingProxyType(
    {
        **BUILTINS,
        "json": Function(_json, ("interface {}",)),
        "currentDate": Function(lambda *_: _date(), (), "string"),
        "yesterdayDate": Function(lambda *_: _date(-1), (), "string"),
        "toTypeScriptType": Function(_type_script_type, ("interface {}",)),
    }
)
