"""The parser of Modelfiles: text in, commands out, with Ollama's error texts.

`puna.models.modelfile` has the rules of values. `#` begins a comment only where a command could begin. All characters
of a value are kept; Ollama drops those that are not printable, such as the joiners of Persian and of emoji.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from puna.cli.errors import CommandError
from puna.models.modelfile import read_value
from puna.options import KINDS

COMMANDS: Final = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
OWN_COMMANDS: Final = ("backend", "backend_format", "backend_option", "upstream", "capability")
"""Puna's own commands. Ollama refuses them, as it refuses any unknown one."""
ROLES: Final = ("system", "user", "assistant")
INTEGERS: Final = frozenset(name for name, kind in KINDS.items() if kind == "integer")
FLOATS: Final = frozenset(name for name, kind in KINDS.items() if kind == "float32")
BOOLEANS: Final = frozenset(name for name, kind in KINDS.items() if kind == "boolean")
# Ollama warns of these and goes on. An unknown parameter is an error.
DEPRECATED: Final = frozenset(
    {
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mlock",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
    }
)
TRUE, FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_SOURCE: Final = re.compile(r"^[ \t]*(FROM|UPSTREAM|BACKEND)[ \t]", re.MULTILINE)
_SEMVER: Final = re.compile(r"v?\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a Modelfile."""

    name: str
    """The command in lower case. A PARAMETER has the name of the parameter instead."""
    value: str
    role: str = ""
    """The role of a MESSAGE."""
    key: str = ""
    """The name of the option that a BACKEND_OPTION sets."""
    is_parameter: bool = False


def decode(data: bytes) -> str:
    """Decode a Modelfile: UTF-8, or UTF-16 with a byte-order mark."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    # Editors on Windows write a byte-order mark, which must not become part of the first command.
    return data.decode("utf-8-sig", "replace")


def parse(text: str) -> list[Command]:
    """Return the commands in order. Raises CommandError."""
    commands = list(_Reader(text).commands())
    names = {each.name for each in commands if not each.is_parameter}
    if {"from", "upstream"} <= names:
        raise CommandError("a Modelfile has either FROM or UPSTREAM, since a model of an upstream has no files")
    # A backend may need neither a file nor an upstream. The server knows, and says what is missing.
    if not names & {"from", "upstream", "backend"}:
        raise CommandError("no FROM line")
    return commands


def is_modelfile(data: bytes) -> bool:
    """Return whether a file is a text that begins with a command, or has a line of one that says what a model is."""
    if b"\0" in data:
        return False
    text = decode(data)
    words = (line.split()[0] for line in text.splitlines() if line.strip())
    first = next((word.lower() for word in words if not word.startswith("#")), "")
    # The second rule finds Modelfiles with a misspelt first line, whose error the user must see.
    return first in COMMANDS + OWN_COMMANDS or _SOURCE.search(text) is not None


class _Reader:
    """A cursor over the text that counts lines. CR and LF both count, as in Ollama."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    def commands(self) -> Iterator[Command]:
        while self._skip_to_command():
            word = self._word()
            name = word.lower()
            if name not in COMMANDS + OWN_COMMANDS or self._peek() not in (" ", "\t"):
                # The text is Ollama's, with the commands in its order.
                names = ", ".join(f'"{each}"' for each in (*COMMANDS[:8], "parameter", "message"))
                self._fail(f'command must be one of {names}, or "requires"')
            self._place += 1
            if name == "message":
                role = self._part()
                if role not in ROLES:
                    self._fail('message role must be one of "system", "user", or "assistant"')
                yield Command(name, self._value(role), role=role)
            elif name == "parameter":
                parameter = self._part()
                yield Command(parameter, self._value(parameter), is_parameter=True)
            elif name == "backend_option":
                key = self._part(r"[A-Za-z0-9_.-]*")
                yield Command(name, self._value(key), key=key)
            else:
                yield Command(name, self._value(""))

    def _skip_to_command(self) -> bool:
        while (char := self._peek()) and char in " \t\r\n#":
            if char == "#":
                self._line()
            else:
                self._place += 1
        return bool(char)

    def _peek(self) -> str:
        return self._text[self._place : self._place + 1]

    def _word(self) -> str:
        match = re.compile("[A-Za-z_]*").match(self._text, self._place)
        assert match is not None
        self._place = match.end()
        if self._peek() in ("\r", "\n"):
            self._place += 1  # Ollama reports the next line
        return match[0]

    def _part(self, pattern: str = r"[A-Za-z0-9_]*") -> str:
        """Read the name of a parameter or an option or the role of a message, and one space after it."""
        match = re.compile(pattern).match(self._text, self._place)
        assert match is not None
        self._place = match.end()
        if self._peek() not in (" ", "\t"):
            if not self._peek() or self._peek() in "\r\n":
                raise CommandError(f"unexpected EOF: {match[0]}" if match[0] else "unexpected EOF")
        else:
            self._place += 1
        return match[0]

    def _line(self) -> str:
        end = len(self._text)
        for char in "\r\n":
            found = self._text.find(char, self._place)
            end = found if 0 <= found < end else end
        line = self._text[self._place : end]
        self._place = end
        return line

    def _value(self, part: str) -> str:
        """Read a value. A quoted value may have several lines."""
        if (found := read_value(self._text, self._place)) is None:
            empty = not self._line().strip()
            # Ollama names the part only where the line ends without a value; an open quote has the plain text.
            raise CommandError(f"unexpected EOF: {part}" if part and empty and self._peek() else "unexpected EOF")
        value, self._place = found
        return value

    def _fail(self, text: str) -> None:
        # Only an error needs the number of the line, so it is counted afterwards. CR LF counts twice, as in Ollama.
        before = self._text[: self._place]
        line = 1 + before.count("\n") + before.count("\r")
        raise CommandError(f"(line {line}): {text}")


def parameters(commands: list[Command]) -> dict[str, object]:
    """Return the typed parameters. The last of repeated values wins; `stop` collects all. Raises CommandError."""
    found: dict[str, object] = {}
    stops: list[str] = []
    for each in commands:
        if not each.is_parameter:
            continue
        if each.name == "stop":
            stops.append(each.value)
        elif each.name in DEPRECATED:
            print(f"warning: parameter {each.name} is deprecated")
        else:
            found[each.name] = _typed(each.name, each.value)
    return found | ({"stop": stops} if stops else {})


def _typed(name: str, value: str) -> object:
    if name in INTEGERS:
        if not re.fullmatch(r"[+-]?\d+", value):
            raise CommandError(f"invalid int value [{value}]")
        return int(value)
    if name in FLOATS:
        try:
            return float(value)
        except ValueError:
            raise CommandError(f"invalid float value [{value}]") from None
    if name in BOOLEANS:
        if value not in TRUE + FALSE:
            raise CommandError(f"invalid bool value [{value}]")
        return value in TRUE
    raise CommandError(f"unknown parameter '{name}'")


def check_requires(value: str) -> str:
    """Return the version of REQUIRES in its stored form. Raises CommandError."""
    if not _SEMVER.fullmatch(value):
        raise CommandError("requires must be a valid semver (e.g. 0.14.0)")
    return value.removeprefix("v")
