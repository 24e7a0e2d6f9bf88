"""What stops a conversion, and the exit status that says so."""

from typing import ClassVar


class ConversionError(Exception):
    """The folder cannot be converted; the text says which file and why."""

    status: ClassVar[int] = 2


class UnsupportedError(Exception):
    """Nothing is wrong with the folder, but nobody here knows its kind; the text is Ollama's."""

    status: ClassVar[int] = 3
