"""The layer of a model's parameters: a JSON object with sorted keys."""

from collections.abc import Iterable, Mapping
from typing import Any

from puna.go import json as gojson
from puna.go import json_text


def loads(data: bytes) -> dict[str, Any]:
    """Read a layer. All numbers become floats, as in Go. Raises ValueError if it is no object."""
    value = json_text.loads(data, integer=float)
    if not isinstance(value, dict):
        raise ValueError("parameters are a JSON object")
    return value


def merged(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge parameters key by key. Later ones win, and lists are replaced as a whole."""
    out: dict[str, Any] = {}
    for layer in layers:
        out |= layer
    return out


def dumps(parameters: Mapping[str, Any]) -> bytes:
    """Write a layer as Ollama does, down to the newline."""
    return gojson.dumps(_floats(parameters), sort_keys=True).encode() + b"\n"


def _floats(value: object) -> object:
    # bool comes before int, of which it is a subclass in Python.
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return float(value)
    if isinstance(value, Mapping):
        return {key: _floats(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_floats(each) for each in value]
    return value
