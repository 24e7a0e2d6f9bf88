"""Overrides of the configuration in a creation request (`info`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from puna.errors import InvalidCreateError

_LARGEST: Final = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """The overrides; empty and 0 mean not given."""

    capabilities: tuple[str, ...] = ()
    model_family: str = ""
    base_name: str = ""
    quantization_level: str = ""
    parameter_size: str = ""
    context_length: int = 0
    embedding_length: int = 0


def read(info: Mapping[str, Any]) -> Overrides:
    """Read the overrides. Unknown keys are ignored. Raises InvalidCreateError, which names the invalid field."""
    listed = info.get("capabilities")
    return Overrides(
        capabilities=tuple(each for each in listed if isinstance(each, str)) if isinstance(listed, list) else (),
        model_family=_text(info, "model_family"),
        base_name=_text(info, "base_name"),
        quantization_level=_text(info, "quantization_level"),
        parameter_size=_text(info, "parameter_size"),
        context_length=_count(info, "context_length"),
        embedding_length=_count(info, "embedding_length"),
    )


def _text(info: Mapping[str, Any], key: str) -> str:
    value = info.get(key, "")
    if not isinstance(value, str):
        raise InvalidCreateError(f'info field "{key}" must be a string')
    return value


def _count(info: Mapping[str, Any], key: str) -> int:
    value = info.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidCreateError(f'info field "{key}" must be a number')
    # JSON numbers may arrive as floats, which count as integers if they have no fraction.
    if value != int(value) or not 0 <= value < _LARGEST:
        raise InvalidCreateError(f'info field "{key}" must be a non-negative integer')
    return int(value)
