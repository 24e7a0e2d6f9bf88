import argparse
from pathlib import Path

import pytest

from puna.cli.completion.line import FILES, FOLDERS, UNKNOWN, VALUES, WORDS, candidates, cursor, values_of
from puna.cli.completion.sources import INSTALLED, LOADED
from puna.cli.parsers import parser

PROGRAM = parser()
NAMES = {INSTALLED: ["llamita", "llama3:8b", "llama3:70b"], LOADED: ["llama3:8b"]}


def found(line):
    """Return the kind and the words for a line whose last word is at the cursor."""
    *words, current = line.split(" ")
    answer = candidates(PROGRAM, words, current, lambda source: NAMES.get(source, [source]))
    return answer.kind, [word for word, _ in answer.words]


def arguments(command=PROGRAM, path=""):
    """Yield the path of each command with each of its arguments."""
    for action in (*command.options(), *command.positionals()):
        if not isinstance(action, argparse._HelpAction | argparse._VersionAction) and action.nargs != 0:
            yield path, action
    for name, each in command.commands().items():
        yield from arguments(each, f"{path} {name}".strip())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ver", ["version"]),
        ("key re", ["revoke"]),
        ("help re", ["rest", "requests"]),
        ("run llama3:", ["llama3:8b", "llama3:70b"]),
        ("run --keepalive=5m lla", ["llamita", "llama3:8b", "llama3:70b"]),
        ("run --keepalive 5m --verbose llami", ["llamita"]),
        ("--verbose run llami", ["llamita"]),
        ("--config f run llami", ["llamita"]),
        ("cp llama3:8b x", []),
        ("rm llama3:8b llami", ["llamita"]),
        ("stop ", ["llama3:8b"]),
        ("run llamita --think=m", ["--think=medium", "--think=max"]),
        ("run llamita --verbose=", ["--verbose=true", "--verbose=false"]),
        ("run llamita --format j", ["json"]),
        ("import --link s", ["symbolic"]),
        ("create m --from llami", ["llamita"]),
        ("create m --from=llami", ["--from=llamita"]),
        ("serve --log-format j", ["json"]),
        ("completion f", ["fish"]),
        ("show --verb", ["--verbose"]),
        ("show --verbose --verb", []),
        ("create m --option a=b --opt", ["--option"]),
        ("create m --experim", []),
        ("show -v", ["-v"]),
        ("run 'llami", ["llamita"]),
        ("show -- --verb", []),
        ("nonsense x", []),
    ],
)
def test_words(line, words):
    assert found(line) == (WORDS, words)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("run m Describe ./pic", FILES),
        ("create m --gguf ", FILES),
        ("create m --gguf=x", FILES),
        ("create m --folder ", FOLDERS),
        ("import a b", FILES),
        ("--config ", FILES),
        ("plugin new x --folder ", FOLDERS),
    ],
)
def test_names_of_files_are_left_to_the_shell(line, kind):
    assert found(line) == (kind, [])


def test_options_are_offered_where_nothing_else_can_stand():
    assert "--once" in found("top ")[1]
    # One of these options excludes the others.
    left = found("show llamita --license ")[1]
    assert left == ["--help", "--verbose", "--fit", "--context-length", "--slots", "--kv-cache-type", "--config"]


def test_words_behind_two_hyphens_are_counted():
    assert cursor(PROGRAM, ["run", "--", "m", "--think"]).position == 2


def test_paths_are_completed_with_paths_and_choices_with_choices():
    listed = list(arguments())
    assert len(listed) > 80
    paths = [values_of(path, action) for path, action in listed if action.type is Path]
    assert set(paths) == {FILES, FOLDERS}
    assert all(values_of(path, action) for path, action in listed if action.choices)


def test_every_entry_of_the_table_is_an_argument():
    known = {action.dest for _, action in arguments()} | {f"{path} {action.dest}" for path, action in arguments()}
    assert VALUES.keys() <= known


def test_commands_and_options_have_descriptions():
    answer = candidates(PROGRAM, [], "lis", lambda source: [])
    assert answer.words == [("list", "list the models of the store")]
    assert dict(candidates(PROGRAM, ["run"], "--ver", lambda source: []).words)["--verbose"]
    assert values_of("create", PROGRAM.commands()["create"].option("--system")) == UNKNOWN
