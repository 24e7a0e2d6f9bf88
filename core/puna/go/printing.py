"""Decoded JSON values as Go's fmt package prints them. All numbers are float64, and objects are maps."""

from collections.abc import Mapping

from puna.go.json import percent_v, quote


def plain(value: object) -> str:
    """Format like %v."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{plain(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(plain(each) for each in value) + "]"
    return _scalar(value, "<nil>")


def syntax(value: object) -> str:
    """Format like %#v, Go's syntax."""
    return "<nil>" if value is None else _syntax(value)


def _syntax(value: object) -> str:
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{quote(key)}:{_syntax(value[key])}" for key in sorted(value))
        return "map[string]interface {}{" + pairs + "}"
    if isinstance(value, list | tuple):
        return "[]interface {}{" + ", ".join(_syntax(each) for each in value) + "}"
    return _scalar(value, "interface {}(nil)")


def _scalar(value: object, nothing: str) -> str:
    if value is None:
        return nothing
    # bool comes first: it is a subclass of int in Python.
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return percent_v(float(value))
    raise TypeError(f"{type(value).__name__} is no JSON value")
