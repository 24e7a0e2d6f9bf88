"""Argument parsers for the commands, which accept argv as users of Ollama's command line write it.

argparse differs from that command line (cobra and pflag of Go) in six ways. It does not accept options between
positional arguments. An option with an optional value takes the next word as its value. The words behind "--" are
positional, but argparse removes a second "--" from them in some versions of Python and refuses them in others where a
positional argument of one word comes first. An unknown option prints the usage of the whole program. An unknown command
prints all commands without a suggestion. Options of a command are refused in front of its name.

The classes Command and Program remove these differences: they sort the words into options and positional arguments
first, as pflag does, and give argparse the options in front.
"""

import argparse
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

TRUE = ("1", "t", "true")
FALSE = ("0", "f", "false")
_SHIELD: Final = "\0"
"""Stands in front of a positional argument that argparse would read as an option. No word of argv holds it."""


class Command(argparse.ArgumentParser):
    """The parser of one command. Options and positional arguments may stand in any order."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - the arguments of argparse
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        # An abbreviation that works today would break when another option of that beginning is added.
        super().__init__(allow_abbrev=False, **settings)
        self._bare: dict[str, str] = {}

    def add_flag(self, *names: str, help: str, default: bool = False) -> None:  # noqa: A002 - the name of argparse
        """Add a boolean option. A value can follow "=" only."""
        self.add_argument(*names, type=truth, default=default, metavar="BOOL", help=help)
        self._bare |= dict.fromkeys(names, "true")

    def add_optional(self, name: str, *, alone: str, help: str) -> None:  # noqa: A002 - the name of argparse
        """Add an option with an optional value, which can follow "=" only. `alone` is the value if there is none."""
        self.add_argument(name, default="", help=help)
        self._bare[name] = alone

    def parse_known_args(  # type: ignore[override]  # argparse has overloads of the same meaning
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the words of this command. A word that is left over is an error of this command."""
        # The words behind an action belong to that action's parser, which sorts them.
        sorted_words = list(args or ()) if self._subparsers is not None else self._sorted(args or ())
        arguments, rest = super().parse_known_args(sorted_words, namespace)
        # Refused here, so that the error shows the usage of this command and not that of the program.
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        for name, value in vars(arguments).items():
            setattr(arguments, name, _unshielded(value))
        return arguments, []

    def error(self, message: str) -> NoReturn:
        """Print the error and a hint at --help, and exit with status 2."""
        text = message.replace(_SHIELD, "")
        self.exit(2, f"Error: {text}\n{self.format_usage()}Run '{self.prog} --help' for all options.\n")

    def _sorted(self, words: Sequence[str]) -> list[str]:
        """Return the options, each with its value, and behind them the positional arguments."""
        options: list[str] = []
        positional: list[str] = []
        left = list(words)
        while left:
            word = left.pop(0)
            if word == "--":
                positional += left
                break
            if not self.is_option(word):
                positional.append(word)
            elif word in self._bare:
                options.append(f"{word}={self._bare[word]}")
            else:
                options.append(word)
                if self.takes_next(word):
                    if not left:
                        self.error(f"argument {word}: expected one argument")
                    # pflag takes the next word as the value, even if it looks like an option.
                    value = left.pop(0)
                    options[-1] = f"{word}={value}" if word.startswith("--") else f"{word}{value}"
        return options + [f"{_SHIELD}{word}" if word.startswith("-") else word for word in positional]

    def is_option(self, word: str) -> bool:
        """Return whether a word is an option. A text such as "- one" or "-5" is a prompt, which pflag refuses."""
        if self.option(word) is not None:
            return True
        return word.startswith("-") and len(word) > 1 and " " not in word and not word[1].isdigit()

    def option(self, word: str) -> argparse.Action | None:
        """Return the option that a word names, with or without "=" and a value."""
        return self._option_string_actions.get(word.partition("=")[0])

    def takes_next(self, word: str) -> bool:
        """Return whether a word is an option whose value is the next word."""
        action = self._option_string_actions.get(word)
        return action is not None and action.nargs is None and word not in self._bare

    def options(self) -> list[argparse.Action]:
        """Return the options that the help text shows."""
        return [each for each in self._actions if each.option_strings and each.help != argparse.SUPPRESS]

    def positionals(self) -> list[argparse.Action]:
        """Return the positional arguments, without the name of a command."""
        return [
            each
            for each in self._actions
            if not each.option_strings and not isinstance(each, argparse._SubParsersAction)  # noqa: SLF001
        ]

    def commands(self) -> dict[str, "Command"]:
        """Return the parsers of the commands, or actions, of this one by their names and aliases."""
        actions = [each for each in self._actions if isinstance(each, argparse._SubParsersAction)]  # noqa: SLF001
        return {name: parser for each in actions for name, parser in each.choices.items()}

    def summaries(self) -> dict[str, str]:
        """Return the help texts of the commands, or actions, of this one by their names, without aliases."""
        actions = [each for each in self._actions if isinstance(each, argparse._SubParsersAction)]  # noqa: SLF001
        return {each.dest: each.help or "" for action in actions for each in action._choices_actions}  # noqa: SLF001


class Program(Command):
    """The parser of the whole program. Options of a command may stand in front of its name, as in `--verbose run m`."""

    def __init__(self, *, bare: Iterable[str] = (), absent: dict[str, str], **settings: Any) -> None:  # noqa: ANN401
        """`bare`: options of commands that take no value. `absent`: error texts of commands that Puna lacks."""
        super().__init__(**settings)
        self._moved, self._absent = tuple(bare), absent

    def parse_known_args(  # type: ignore[override]  # argparse has overloads of the same meaning
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the words of the program."""
        words, front, moved = list(args or ()), [], []
        while words and words[0].startswith("-"):
            word = words.pop(0)
            if word in self._moved or ("=" in word and word.partition("=")[0] not in self._option_string_actions):
                moved.append(word)
                continue
            front.append(word)
            if self.takes_next(word) and words:
                front.append(words.pop(0))
        self._refuse_unknown(words)
        return super().parse_known_args([*front, *words[:1], *moved, *words[1:]], namespace)

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        choices = self.commands()
        if not words or words[0] in choices:
            return
        if words[0] in self._absent:
            self.exit(2, f"Error: {self._absent[words[0]]}\n")
        near = difflib.get_close_matches(words[0], choices, n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        self.exit(2, f"Error: unknown command {words[0]!r}. {hint}Run '{self.prog} --help' for all commands.\n")


def _unshielded(value: object) -> object:
    if isinstance(value, list):
        return [_unshielded(each) for each in value]
    if isinstance(value, str):
        return value.removeprefix(_SHIELD)
    return Path(str(value).removeprefix(_SHIELD)) if isinstance(value, Path) else value


def truth(text: str) -> bool:
    """Return a boolean in Go's notation. Raises ValueError."""
    lowered = text.lower()
    if lowered not in TRUE + FALSE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return lowered in TRUE


def environment(*lines: tuple[str, str]) -> str:
    """Return the section of a help text that names environment variables."""
    width = max(len(name) for name, _ in lines)
    return "environment variables:\n" + "\n".join(f"  {name:<{width}}  {text}" for name, text in lines)
