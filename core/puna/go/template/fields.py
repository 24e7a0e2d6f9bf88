"""Follows names through structs, maps and pointers, as `.A.B` asks."""

from collections.abc import Sequence
from enum import Enum
from typing import Final

from puna.go.template.run import Run
from puna.go.template.values import MISSING, Boxed, Pointer, Struct, Value, entries, methods, type_name


class Absent(Enum):
    """No value is piped in."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


def follow(run: Run, receiver: Value, path: Sequence[str], arguments: int) -> Value:
    """Return what the names of `path` lead to; `arguments` is how many the last one is given.

    Raises TemplateError where a name leads nowhere. What a map of interfaces holds comes back boxed.
    """
    for name in path[:-1]:
        receiver = _field(run, receiver, name, 0)
    return _field(run, receiver, path[-1], arguments)


def _field(run: Run, receiver: Value, name: str, arguments: int) -> Value:
    if receiver is MISSING:
        return MISSING
    value = receiver.value if type(receiver) is Boxed else receiver
    if value is None:
        raise run.error(f"nil pointer evaluating interface {{}}.{name}")
    method = methods(value).get(name)
    if method is not None:
        if arguments:
            raise run.error(f"wrong number of args for {name}: want 0 got {arguments}")
        run.budget.spend(run.budget.bulk)
        return method(value)
    struct = value.target if isinstance(value, Pointer) else value
    if isinstance(struct, Struct):
        if name in struct.values:
            if arguments:
                raise run.error(f"{name} has arguments but cannot be invoked as function")
            return struct.values[name]
    elif (mapping := entries(value)) is not None:
        if arguments:
            raise run.error(f"{name} is not a method but has arguments")
        items, type_ = mapping
        if name not in items:
            return MISSING if run.lenient else Boxed(None) if type_.boxed else type_.zero()
        return Boxed(items[name]) if type_.boxed else items[name]
    raise run.error(f"can't evaluate field {name} in type {_type_name(receiver)}")


def _type_name(receiver: Value) -> str:
    return "interface {}" if type(receiver) is Boxed else type_name(receiver)
