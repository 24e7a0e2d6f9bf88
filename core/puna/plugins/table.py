"""Typed access to the fields of a manifest, with errors that name the field."""

import re
from collections.abc import Mapping
from typing import Final

MAX_TEXT: Final = 1000
"""Characters of one text of a manifest."""
MAX_ITEMS: Final = 200
"""Entries of one list or table of a manifest."""
_SHOWN: Final = 60
"""Characters of an unknown key that an error repeats."""


class ManifestError(Exception):
    """A manifest cannot be used. The text names the field and what it must be."""


class Table:
    """A table of a manifest. Each field is taken once; `end` refuses those that are left."""

    def __init__(self, values: object, name: str = "") -> None:
        """`name` is the table's own name in the manifest, such as "host"; empty for the whole file."""
        self._prefix = f"{name}." if name else ""
        if not isinstance(values, Mapping):
            raise ManifestError(f"{name}: must be a table")
        if len(values) > MAX_ITEMS:
            raise ManifestError(f"{name or 'the file'}: has more than {MAX_ITEMS} entries")
        self._values = dict(values)
        self._known: list[str] = []

    def __contains__(self, field: str) -> bool:
        return field in self._values

    def where(self, field: str) -> str:
        """Return a field's full name, for errors."""
        return f"{self._prefix}{shown(field)}"

    def text(self, field: str, default: str | None = None, *, pattern: str = "", form: str = "") -> str:
        """Return a printable text. `form` says in words what `pattern` demands. No default: the field is required."""
        value = self._take(field, default)
        if not isinstance(value, str):
            raise ManifestError(f"{self.where(field)}: must be a text")
        # An absent field may have a default that the pattern would refuse, such as the empty text.
        if value is not default:
            _check_text(self.where(field), value, pattern, form)
        return value

    def texts(
        self, field: str, default: tuple[str, ...] | None = (), *, pattern: str = "", form: str = ""
    ) -> tuple[str, ...]:
        """Return a list of printable texts."""
        value = self._take(field, default)
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            raise ManifestError(f"{self.where(field)}: must be a list of texts")
        if len(value) > MAX_ITEMS:
            raise ManifestError(f"{self.where(field)}: has more than {MAX_ITEMS} entries")
        for each in value:
            _check_text(self.where(field), each, pattern, form)
        return tuple(value)

    def choices(self, field: str, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return a list of texts out of `known`."""
        chosen = self.texts(field)
        for each in chosen:
            if each not in known:
                raise ManifestError(f"{self.where(field)}: {shown(each)!r} is not one of {', '.join(known)}")
        return chosen

    def flag(self, field: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self._take(field, default)
        if not isinstance(value, bool):
            raise ManifestError(f"{self.where(field)}: must be true or false")
        return value

    def whole(self, field: str, default: int | None = None) -> int:
        """Return a whole number of at most 32 bits."""
        value = self._take(field, default)
        # Not isinstance, because True is an instance of int.
        if type(value) is not int or abs(value) >= 1 << 31:
            raise ManifestError(f"{self.where(field)}: must be a whole number")
        return value

    def table(self, field: str) -> "Table":
        """Return a table within this one; an absent one is empty."""
        return Table(self._take(field, {}), self.where(field))

    def items(self) -> list[tuple[str, object]]:
        """Return all entries, for a table whose keys its author chooses."""
        return list(self._values.items())

    def take(self, field: str) -> object:
        """Return a field of any type; None if it is absent."""
        return self._take(field, None) if field in self._values else None

    def end(self) -> None:
        """Raise ManifestError if a field is left that no call has taken: a typing error must not be ignored."""
        for field in self._values:
            known = ", ".join(sorted(self._known))
            raise ManifestError(f"{self.where(field)}: a manifest has no such field here (known: {known})")

    def _take(self, field: str, default: object) -> object:
        self._known.append(field)
        value = self._values.pop(field, default)
        if value is None:
            raise ManifestError(f"{self.where(field)}: is missing")
        return value


def shown(text: str) -> str:
    """Return a third party's name as errors and lists show it: cut, and without control characters."""
    return plain(text, _SHOWN)


def plain(text: str, longest: int = 2 * MAX_TEXT) -> str:
    """Return an untrusted text, such as a path: cut, and without characters of no glyph.

    Lone surrogates, with which paths hold bytes that are not UTF-8, cannot be sent or printed.
    """
    cut = text if len(text) <= longest else f"{text[:longest]}…"
    return "".join(each if each.isprintable() else "?" for each in cut)


def _check_text(where: str, value: str, pattern: str, form: str) -> None:
    # The texts appear on terminals, where a control character could move the cursor or change colours.
    if len(value) > MAX_TEXT or not value.isprintable():
        raise ManifestError(f"{where}: must have at most {MAX_TEXT} characters, all printable")
    if pattern and not re.fullmatch(pattern, value):
        raise ManifestError(f"{where}: must be {form}")
