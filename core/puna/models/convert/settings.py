"""Typed access to the settings in config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from puna.models.convert.failure import ConversionError


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """An object of config.json."""

    values: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        """Whether a key has a value. null is no value."""
        return self.values.get(key) is not None

    def integer(self, key: str, default: int | None = None) -> int:
        """Return an integer. Raises ConversionError if it is no integer, or missing without a default."""
        value = self._value(key, default)
        # bool is a subclass of int in Python. The upper bound is the range of uint32, in which GGUF stores these keys.
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
            raise ConversionError(f'config.json: "{key}" is not a whole number')
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number. Raises ConversionError."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConversionError(f'config.json: "{key}" is not a number')
        return float(value)

    def text(self, key: str, default: str = "") -> str:
        """Return a text. Raises ConversionError."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise ConversionError(f'config.json: "{key}" is not a text')
        return value

    def flag(self, key: str) -> bool:
        """Whether a key is true. A missing key is false."""
        return self.values.get(key) is True

    def part(self, key: str) -> "ModelSettings":
        """Return a nested object; empty if there is none."""
        value = self.values.get(key)
        return ModelSettings(value if isinstance(value, dict) else {})

    def _value(self, key: str, default: object) -> object:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise ConversionError(f'config.json: "{key}" is missing')
        return value
