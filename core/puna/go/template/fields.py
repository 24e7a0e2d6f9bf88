"""Field access such as `.A.B` through structs, maps and pointers."""

from collections.abc import Sequence
from enum import Enum
from typing import Final

from puna.go.template.run import Run
from puna.go.template.values import MISSING, Boxed, Pointer, Struct, Value, entries, methods, type_name


class Absent(Enum):
    """The type of ABSENT: no value is piped in."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


def follow(run: Run, receiver: Value, path: Sequence[str], arguments: int) -> Value:
    """Return the value at a path of names. `arguments` is the number of arguments of the last name.

    Elements of a map of interfaces are returned boxed. TemplateError: a name does not exist.
    """
    # Only the last name may be called with arguments.
    for name in path[:-1]:
        receiver = _field(run, receiver, name, 0)
    return _field(run, receiver, path[-1], arguments)


def _field(run: Run, receiver: Value, name: str, arguments: int) -> Value:
    if receiver is MISSING:
        return MISSING
    value = receiver.value if type(receiver) is Boxed else receiver
    if value is None:
        raise run.error(f"nil pointer evaluating interface {{}}.{name}")
    # Methods hide fields of their name, as in Go.
    method = methods(value).get(name)
    if method is not None:
        if arguments:
            raise run.error(f"wrong number of args for {name}: want 0 got {arguments}")
        # The methods of Ollama's types print the structure that they belong to.
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
        # Go's missingkey=zero gives the zero value of the element type; by its default a missing key is invalid.
        if name not in items:
            return MISSING if run.lenient else Boxed(None) if type_.boxed else type_.zero()
        return Boxed(items[name]) if type_.boxed else items[name]
    raise run.error(f"can't evaluate field {name} in type {_type_name(receiver)}")


def _type_name(receiver: Value) -> str:
    return "interface {}" if type(receiver) is Boxed else type_name(receiver)
