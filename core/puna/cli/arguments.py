"""Argument parsers for the commands, which accept argv as users of Ollama's command line write it.

argparse differs from that command line in three ways: it does not accept options between positional arguments, an
option with an optional value takes the next word as its value, and an unknown option prints the usage of the whole
program. The class Command removes these differences.
"""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

TRUE = ("1", "t", "true")
FALSE = ("0", "f", "false")


class Command(argparse.ArgumentParser):
    """The parser of one command. Options and positional arguments may stand in any order."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - the arguments of argparse
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        # An abbreviation that works today would break when another option of that beginning is added.
        super().__init__(allow_abbrev=False, **settings)
        self._bare: dict[str, str] = {}
        # argparse parses mixed arguments by calling parse_known_args twice, with options and without. This flag lets
        # those inner calls through.
        self._mixing = False

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
        # A command of actions has no options of its own to mix; argparse refuses to try.
        if self._mixing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            arguments, rest = self.parse_known_intermixed_args(self._with_values(args or ()), namespace)
        finally:
            self._mixing = False
        # Refused here, so that the error shows the usage of this command and not that of the program.
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return arguments, []

    def error(self, message: str) -> NoReturn:
        """Print the error and a hint at --help, and exit with status 2."""
        self.exit(2, f"Error: {message}\n{self.format_usage()}Run '{self.prog} --help' for all options.\n")

    def _with_values(self, words: Sequence[str]) -> list[str]:
        """Return the words with values added to options that stand alone, up to "--"."""
        words = list(words)
        # Words after "--" are positional, even if they look like options.
        end = words.index("--") if "--" in words else len(words)
        return [f"{word}={self._bare[word]}" if word in self._bare else word for word in words[:end]] + words[end:]


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
