"""Go's values in templates: structs, typed maps and slices, pointers.

Strings, booleans, integers and floats are Python's own. A dict is a map[string]interface {}, and a list is an
[]interface {}. None is a nil interface. MISSING is the invalid reflect.Value, which Go prints as "<no value>".
"""

import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

from puna.go import json as gojson

Value: TypeAlias = Any
"""Any value of a template."""


class Missing(Enum):
    """The type of MISSING, the value of a name that does not exist."""

    MISSING = "<no value>"


MISSING: Final = Missing.MISSING


class Unsigned(int):
    """A byte of a string, Go's uint8."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct: its name, its JSON key, and whether JSON omits it when empty."""

    name: str
    key: str = ""
    omit_empty: bool = False


@dataclass(frozen=True, slots=True)
class StructType:
    """A struct type. A method takes the struct and is called like a field."""

    name: str
    fields: tuple[Field, ...]
    methods: Mapping[str, Callable[[Any], str]] = field(default_factory=dict)


class Struct:
    """A struct: its type, and the values of its fields by name, in the type's order."""

    __slots__ = ("type", "values")

    def __init__(self, type_: StructType, *values: object) -> None:
        self.type = type_
        self.values: dict[str, Any] = dict(zip((f.name for f in type_.fields), values, strict=True))


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer to a struct. A `target` of None is a nil pointer of type `type_name`."""

    target: Struct | None
    type_name: str


@dataclass(frozen=True, slots=True)
class ContainerType:
    """A slice or map type."""

    name: str
    boxed: bool = False
    """True if the element type is an interface. Error texts mention it."""
    methods: Mapping[str, Callable[[Any], str]] = field(default_factory=dict)
    zero: Callable[[], Any] = lambda: None
    """Returns the zero value, which a map gives for a missing key."""


class Slice:
    """A slice of a declared type. `nil` tells a nil slice from an empty one."""

    __slots__ = ("items", "nil", "type")

    def __init__(self, type_: ContainerType, items: Sequence[Any] | None) -> None:
        self.type = type_
        self.items: Sequence[Any] = items or ()
        self.nil = items is None


class Map:
    """A map with string keys. `nil` tells a nil map from an empty one."""

    __slots__ = ("items", "nil", "type")

    def __init__(self, type_: ContainerType, items: Mapping[str, Any] | None) -> None:
        self.type = type_
        self.items: Mapping[str, Any] = items or {}
        self.nil = items is None


@dataclass(frozen=True, slots=True)
class Boxed:
    """A value held by an interface, like the elements of plain lists and maps."""

    value: Any


STRINGS: Final = ContainerType("[]string")
ANY_SLICE: Final = ContainerType("[]interface {}", boxed=True)
ANY_MAP: Final = ContainerType("map[string]interface {}", boxed=True)


def unbox(value: object) -> Value:
    """Return the value that an interface holds; MISSING for a nil interface."""
    # None must be tested after unboxing, since an interface may hold nil.
    if type(value) is Boxed:
        value = value.value
    return MISSING if value is None else value


def truth(value: object) -> bool:
    """Return the truth of a value in a condition."""
    if type(value) is Boxed:
        value = value.value
    match value:
        case None | Missing():
            return False
        # Go has no empty structs in conditions: a struct is always true.
        case Struct():
            return True
        case Pointer():
            return value.target is not None
        case Slice() | Map():
            return bool(value.items)
    return bool(value)


def type_name(value: object) -> str:
    """Return the name of a value's Go type."""
    match value:
        case Struct():
            return value.type.name
        case Pointer():
            return "*" + value.type_name
        case Slice() | Map():
            return value.type.name
        case str():
            return "string"
        # bool and Unsigned come before int, of which they are subclasses.
        case bool():
            return "bool"
        case Unsigned():
            return "uint8"
        case int():
            return "int"
        case float():
            return "float64"
        case complex():
            return "complex128"
        case Mapping():
            return ANY_MAP.name
        case Sequence():
            return "[]uint8" if isinstance(value, bytes) else ANY_SLICE.name
    return "interface {}"


def methods(value: object) -> Mapping[str, Callable[[Any], str]]:
    """Return the methods of a value; a pointer has those of its struct."""
    match value:
        case Pointer(target=Struct() as target):
            return target.type.methods
        case Struct() | Slice() | Map():
            return value.type.methods
    return {}


def elements(value: object) -> tuple[Sequence[Any], bool] | None:
    """Return the elements of a slice and whether they are boxed, or None for another value."""
    if isinstance(value, Slice):
        return value.items, value.type.boxed
    if isinstance(value, list | tuple):
        return value, True
    # A Go slice of bytes is not a string: its elements are numbers.
    if isinstance(value, bytes):
        return [Unsigned(byte) for byte in value], False
    return None


def entries(value: object) -> tuple[Mapping[str, Any], ContainerType] | None:
    """Return the entries of a map and its type, or None for another value."""
    if isinstance(value, Map):
        return value.items, value.type
    return (value, ANY_MAP) if isinstance(value, Mapping) else None


def to_json(value: object) -> str:
    """Encode like Go's json.Marshal: maps by sorted keys, structs in the order of fields. Raises ValueError."""
    match value:
        case Boxed():
            return to_json(value.value)
        case None | Missing():
            return "null"
        case Pointer():
            return to_json(value.target)
        case Struct():
            custom = value.type.methods.get("MarshalJSON")
            return custom(value) if custom else "{" + ",".join(_members(value)) + "}"
        case Slice():
            if value.nil:
                return "null"
            custom = value.type.methods.get("MarshalJSON")
            return custom(value) if custom else "[" + ",".join(map(to_json, value.items)) + "]"
        case Map():
            return "null" if value.nil else _object(value.items)
        case bytes():
            return gojson.string(_base64(value))
        case Mapping():
            return _object(value)
        case list() | tuple():
            return "[" + ",".join(map(to_json, value)) + "]"
        case str():
            return gojson.string(value)
    return gojson.dumps(value)


def _object(items: Mapping[str, Any]) -> str:
    return "{" + ",".join(f"{gojson.string(key)}:{to_json(items[key])}" for key in sorted_keys(items)) + "}"


def _members(value: Struct) -> Iterator[str]:
    for member in value.type.fields:
        item = value.values[member.name]
        if not (member.omit_empty and _is_empty(item)):
            yield f"{gojson.string(member.key or member.name)}:{to_json(item)}"


def _is_empty(value: object) -> bool:
    # An interface is empty only if it is nil. A zero inside it is kept.
    return value.value is None if isinstance(value, Boxed) else not truth(value)


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


def sorted_keys(items: Mapping[str, Any]) -> list[str]:
    """Return the keys in byte order of UTF-8, which equals the order of code points."""
    return sorted(items)
