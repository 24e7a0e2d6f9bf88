"""The errors of a conversion, each with the exit status of the process."""

from typing import ClassVar


class ConversionError(Exception):
    """The folder cannot be converted. The text says which file and why."""

    status: ClassVar[int] = 2


class UnsupportedError(Exception):
    """The folder may be right, but its kind is not supported. The text is Ollama's."""

    status: ClassVar[int] = 3
