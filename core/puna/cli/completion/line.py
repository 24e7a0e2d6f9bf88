"""The candidates for the word at the cursor of a command line.

A command line is read as the parsers of `puna.cli.arguments` read it, except that words may be missing at its end. The
first words select a command, an option may take the next word as its value, and the other words are positional
arguments. So the word at the cursor is the name of a command, the name of an option, the value of an option, or a
positional argument.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from puna.cli.arguments import Command, truth
from puna.cli.completion.sources import (
    BACKENDS,
    CAPABILITIES,
    FORMATS,
    GRANTS,
    INSTALLED,
    KEYS,
    LOADED,
    PLUGINS,
    QUANTIZATIONS,
    RECORDS,
    REQUESTS,
)

FILES: Final = "files"
FOLDERS: Final = "folders"
WORDS: Final = "words"
COMMANDS: Final = "commands"
UNKNOWN: Final = ""
"""The values of an argument that only the user knows, such as the name of a new model."""
VALUES: Final[Mapping[str, str | tuple[str, ...]]] = {
    "about": COMMANDS,
    "allow": GRANTS,
    "backend": BACKENDS,
    "cancel": REQUESTS,
    "capability": CAPABILITIES,
    "folder": FOLDERS,
    "format": FORMATS,
    "key": KEYS,
    "model": INSTALLED,
    "models": INSTALLED,
    "names": PLUGINS,
    "prefix": INSTALLED,
    # Images and sounds are named in the prompt.
    "prompt": FILES,
    "ps prefix": LOADED,
    "quantize": QUANTIZATIONS,
    "requests model": LOADED,
    "requests show": RECORDS,
    "run format": ("json",),
    "source": INSTALLED,
    "spec": FILES,
    "stop model": LOADED,
    "think": ("true", "false", "low", "medium", "high", "max"),
}
"""The values of each argument: fixed words, or a source of them. Keys are the argument's destination, with the command
in front where commands differ. Paths are completed with files, and arguments that are not listed are UNKNOWN."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place of the cursor in a command line."""

    command: Command
    """The parser of the command that the words in front of the cursor select."""
    path: str
    """Its name, and that of its action: "key revoke"."""
    option: argparse.Action | None
    """The option whose value the word at the cursor is, if it is one."""
    position: int
    """The number of positional arguments in front of the cursor."""
    literal: bool
    """True: "--" stands in front of the cursor. No word behind it is an option."""
    used: frozenset[str]
    """The destinations of the options in front of the cursor, without those that may be repeated."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The words that may stand at the cursor."""

    kind: str
    """FILES and FOLDERS ask the shell for names of files; WORDS stands for the words below."""
    words: Sequence[tuple[str, str]] = ()
    """Each word with a description, which may be empty."""


def cursor(program: Command, words: Sequence[str]) -> Cursor:
    """Return the place behind words, which do not include the name of the program."""
    command, path, position, literal = program, "", 0, False
    used: set[str] = set()
    left = list(words)
    while left and not literal:
        word = left.pop(0)
        if word == "--":
            position, literal = position + len(left), True
        elif command.is_option(word):
            option = command.option(word)
            if option is not None and not isinstance(option, argparse._AppendAction):  # noqa: SLF001 - no public name
                used.add(option.dest)
            if command.takes_next(word):
                if not left:
                    return Cursor(command, path, option, position, literal=False, used=frozenset(used))
                left.pop(0)
        elif word in command.commands():
            command, path, position = command.commands()[word], f"{path} {word}".strip(), 0
        else:
            position += 1
    return Cursor(command, path, None, position, literal, frozenset(used))


def candidates(
    program: Command, words: Sequence[str], current: str, names: Callable[[str], Iterable[str]]
) -> Candidates:
    """Return the candidates for the word `current`, which may be empty or incomplete, behind `words`.

    `names` returns the names of a source of `puna.cli.completion.sources`.
    """
    # The shell passes the word as it is typed, so a quote may be open.
    current = current.lstrip("'\"")
    place = cursor(program, words)
    front, equals, typed = current.partition("=")
    if place.option is not None:
        return _values(program, place.path, place.option, current, names)
    if not place.literal and equals and (option := place.command.option(front)) is not None:
        found = _values(program, place.path, option, typed, names)
        return Candidates(found.kind, [(f"{front}={word}", about) for word, about in found.words])
    if not place.literal and current.startswith("-"):
        return _options(place, current)
    if place.command.commands():
        return _matching(place.command.summaries().items(), current)
    argument = _argument(place)
    if argument is None:
        # Nothing else can stand here.
        return _options(place, current)
    return _values(program, place.path, argument, current, names)


def _argument(place: Cursor) -> argparse.Action | None:
    """Return the positional argument at a place; None if the command takes no more."""
    arguments = place.command.positionals()
    if place.position < len(arguments):
        return arguments[place.position]
    return arguments[-1] if arguments and arguments[-1].nargs in ("*", "+") else None


def _options(place: Cursor, current: str) -> Candidates:
    # The short form of an option is offered where it was begun, and is no second candidate elsewhere.
    return _matching(
        (
            (name, option.help or "")
            for option in place.command.options()
            if option.dest not in place.used
            for name in option.option_strings
            if name.startswith("--") or current == name
        ),
        current,
    )


def values_of(path: str, argument: argparse.Action) -> str | Sequence[str]:
    """Return the values of an argument: fixed words, or the name of a source."""
    if argument.choices is not None:
        return [str(each) for each in argument.choices]
    if argument.type is truth:
        return ("true", "false")
    otherwise = FILES if argument.type is Path else UNKNOWN
    return VALUES.get(f"{path} {argument.dest}") or VALUES.get(argument.dest, otherwise)


def _values(
    program: Command, path: str, argument: argparse.Action, current: str, names: Callable[[str], Iterable[str]]
) -> Candidates:
    values = values_of(path, argument)
    if values in (FILES, FOLDERS):
        return Candidates(str(values))
    if values == COMMANDS:
        return _matching(program.summaries().items(), current)
    if values == UNKNOWN:
        return Candidates(WORDS)
    return _matching(((each, "") for each in (names(values) if isinstance(values, str) else values)), current)


def _matching(words: Iterable[tuple[str, str]], current: str) -> Candidates:
    return Candidates(WORDS, [(word, about.partition("\n")[0]) for word, about in words if word.startswith(current)])
