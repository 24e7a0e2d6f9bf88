"""The command `completion`, which prints a shell's script, and `__complete`, which the scripts call."""

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from puna.cli.arguments import Command
from puna.cli.completion.line import candidates
from puna.cli.completion.sources import names
from puna.settings import Settings, from_environment


def script(shell: str) -> str:
    """Return the script for a shell: "bash", "fish" or "zsh"."""
    return resources.files(__package__).joinpath(f"puna.{shell}").read_text(encoding="utf-8")


def complete(program: Command, words: Sequence[str]) -> str:
    """Return the candidates for the last word behind the others: the kind in one line, then a word in each line.

    A tab stands between a word and its description. `words` do not include the name of the program.
    """
    *front, current = words or [""]
    found = candidates(program, front, current, lambda source: names(lambda: _settings(front), source, current))
    return "\n".join([found.kind, *(f"{word}\t{about}" for word, about in found.words)])


def _settings(words: Sequence[str]) -> Settings:
    """Return the settings by the environment and the option --config of a line. Raises OSError and ValueError."""
    option = "--config"
    path = None
    for index, word in enumerate(words):
        if word == option and index + 1 < len(words):
            path = Path(words[index + 1]).expanduser()
        elif word.startswith(f"{option}="):
            path = Path(word.partition("=")[2]).expanduser()
    return from_environment(os.environ, path)
