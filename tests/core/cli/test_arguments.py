from pathlib import Path

import pytest

from puna.cli.main import main
from puna.cli.parsers import parser


def told(*words):
    return vars(parser().parse_args(words))


@pytest.mark.parametrize(
    "words",
    [
        ("run", "m", "--think=false", "--hidethinking", "--format", "json", "--keepalive", "10m", "Hi", "there"),
        ("run", "--think=false", "m", "Hi", "--hidethinking", "--format=json", "there", "--keepalive=10m"),
        ("run", "--format", "json", "--keepalive", "10m", "--hidethinking=true", "--think=false", "m", "Hi", "there"),
    ],
)
def test_options_may_stand_anywhere(words):
    found = told(*words)
    assert (found["model"], found["prompt"]) == ("m", ["Hi", "there"])
    assert (found["think"], found["format"], found["keepalive"]) == ("false", "json", "10m")
    assert found["hidethinking"] is True


def test_an_option_that_stands_alone_takes_no_word():
    found = told("run", "m", "--think", "Hi", "--verbose", "there", "--insecure=false")
    assert (found["think"], found["prompt"], found["verbose"], found["insecure"]) == (
        "true",
        ["Hi", "there"],
        True,
        False,
    )
    assert told("run", "m", "--", "--think")["prompt"] == ["--think"]


def test_options_between_the_words_of_other_commands():
    assert told("show", "--verbose", "m")["model"] == told("show", "m", "-v")["model"] == "m"
    assert told("rm", "a", "b")["models"] == ["a", "b"]
    assert told("import", "a", "--dry-run", "b", "--replace")["replace"] is True
    assert told("create", "-f", "x", "m", "-q", "Q8_0")["quantize"] == "Q8_0"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run",), "the following arguments are required: model"),
        (("run", "m", "--nonsense"), "unrecognized arguments: --nonsense"),
        (("run", "m", "--verbose=perhaps"), "'perhaps' is neither true nor false"),
        (("cp", "a"), "destination"),
    ],
)
def test_a_wrong_use_shows_the_usage_of_the_command(words, text, capsys):
    with pytest.raises(SystemExit) as raised:
        told(*words)
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert text in said
    assert f"usage: puna {words[0]}" in said


@pytest.mark.parametrize("words", [[], ["help"], ["help", "run"]])
def test_help(words, capsys):
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: puna run" if words[1:] else "usage: puna [")
    assert ("environment variables:\n  PUNA_GRPC_HOST" in said) == bool(words[1:])


def test_every_command_that_reads_settings_names_its_variables(capsys):
    for name in ("serve", "core", "rest", "list", "ps", "show", "run", "create", "pull", "doctor"):
        with pytest.raises(SystemExit):
            parser().parse_args([name, "--help"])
        assert "environment variables:" in capsys.readouterr().out, name


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["run", "m", "--verbose", "Hi"], {"model": "m", "prompt": ["Hi"], "verbose": True}),
        (["run", "--", "m", "-x"], {"model": "m", "prompt": ["-x"]}),
        (["run", "m", "--", "a", "--", "b"], {"prompt": ["a", "--", "b"]}),
        (["run", "m", "Hi", "--", "--think"], {"prompt": ["Hi", "--think"], "think": ""}),
        (["run", "m", "- one"], {"prompt": ["- one"]}),
        (["run", "m", "-"], {"prompt": ["-"]}),
        (["run", "m", "-5"], {"prompt": ["-5"]}),
        (["run", "m", "--format", "--think", "Hi"], {"format": "--think", "think": "", "prompt": ["Hi"]}),
        (["run", "m", "--think", "high"], {"think": "true", "prompt": ["high"]}),
        (["run", "m", "--keepalive=-1s", "--truncate=false"], {"keepalive": "-1s", "truncate": False}),
        (["--verbose", "run", "m", "Hi"], {"verbose": True, "prompt": ["Hi"]}),
        (["--think=false", "run", "m"], {"think": "false", "model": "m"}),
        (["--config", "f", "run", "m"], {"config": Path("f")}),
        (["run", "m", "--config", "f"], {"config": Path("f")}),
        (["create", "m", "-fx", "-q", "q4_0", "--experimental"], {"file": Path("x"), "quantize": "q4_0"}),
        (["create", "-f=x", "m"], {"file": Path("x"), "name": "m"}),
        (["show", "m", "--license", "--verbose=T"], {"wanted": ["license"], "verbose": True}),
        (["rm", "a", "--", "-b"], {"models": ["a", "-b"]}),
        (["ls"], {"prefix": ""}),
        (["pull", "--insecure", "m"], {"insecure": True, "model": "m"}),
        (["push", "m", "--insecure=0"], {"insecure": False, "model": "m"}),
        (["help", "key", "create"], {"about": ["key", "create"]}),
    ],
)
def test_words_mean_the_same_as_to_ollama(line, expected):
    found = told(*line)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (["rnu", "m"], "unknown command 'rnu'. Did you mean 'run'"),
        (["help", "nonsense"], "unknown command 'nonsense'"),
        (["signin"], "no account at ollama.com"),
        (["run", "m", "--format"], "argument --format: expected one argument"),
    ],
)
def test_a_command_that_does_not_exist_is_named(line, text, capsys):
    with pytest.raises(SystemExit) as raised:
        main(line)
    assert raised.value.code == 2
    assert text in capsys.readouterr().err
