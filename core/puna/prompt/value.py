"""The name for what templates and calls can hold."""

from typing import Any, TypeAlias

Value: TypeAlias = Any
"""Whatever a template can hold."""
