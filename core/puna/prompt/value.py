"""The type of values in templates and calls."""

from typing import Any, TypeAlias

Value: TypeAlias = Any
"""Any value that a template can hold."""
