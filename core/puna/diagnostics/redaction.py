"""Removes passages from texts by the operator's patterns.

The patterns are those of RE2, whose time is linear in the length of the text, whatever the pattern is: the texts come
from clients, and are searched on the event loop.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

MARK: Final = "[redacted]"
"""The text that replaces a passage."""
_EXTRA: Final = "PUNA_RECORDS_REDACTION needs the extra `redaction`: pip install 'puna[redaction]'"


class Redaction:
    """The patterns. Without any, texts stay as they are."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        """Raises ValueError if a pattern is wrong or matches the empty text, and OSError if RE2 is not installed."""
        self._patterns = [_compiled(each) for each in patterns]

    def __bool__(self) -> bool:
        """Return whether there are patterns."""
        return bool(self._patterns)

    def text(self, text: str) -> tuple[str, int]:
        """Return the text with MARK for each passage, and the number of passages. It has no lone surrogates."""
        total = 0
        for each in self._patterns:
            text, count = each.subn(MARK, text)
            total += count
        return text, total

    def json_text(self, text: str) -> tuple[str, int]:
        """Return a JSON text whose strings are redacted, and the number of passages. It stays valid JSON.

        A text in which no pattern matches stays as it is, to the byte.
        """
        if not self._patterns:
            return text, 0
        try:
            value, total = self._value(json.loads(text))
        except (ValueError, RecursionError):
            return self.text(text)
        return (json.dumps(value, ensure_ascii=False), total) if total else (text, 0)

    def _value(self, value: Any) -> tuple[Any, int]:  # noqa: ANN401 - any JSON value
        if isinstance(value, str):
            # Escapes of JSON may make lone surrogates.
            return self.text(value.encode(errors="replace").decode())
        if isinstance(value, list):
            parts = [self._value(each) for each in value]
            return [each for each, _ in parts], sum(count for _, count in parts)
        if isinstance(value, dict):
            total, found = 0, {}
            for name, member in value.items():
                key, in_key = self._value(name)
                found[key], in_member = self._value(member)
                total += in_key + in_member
            return found, total
        return value, 0


def read(path: Path | None) -> Redaction:
    """Read the patterns of a file, one in each line. Empty lines, and those that begin with "#", are no patterns.

    OSError: the file cannot be read, a pattern is wrong, or RE2 is not installed. Blocks.
    """
    if path is None:
        return Redaction()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise OSError(f"{path} is not valid UTF-8: {error.reason}") from error
    for number, line in enumerate(lines, 1):
        if _is_pattern(line):
            try:
                Redaction([line])
            except ValueError as error:
                raise OSError(f"{path}:{number}: {error}") from error
    return Redaction(filter(_is_pattern, lines))


def _is_pattern(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _compiled(pattern: str) -> Any:  # noqa: ANN401 - the library has no types
    try:
        import re2
    except ImportError as error:
        raise OSError(_EXTRA) from error
    options = re2.Options()
    options.log_errors = False  # they would go to standard error
    try:
        found = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None
    if found.search("") is not None:
        raise ValueError("the pattern matches the empty text")
    return found
