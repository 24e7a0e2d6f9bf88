"""`puna key`."""

import json

import pytest

from puna.auth.keys import KeyFile
from puna.auth.usage import Ledger
from puna.cli.errors import CommandError
from puna.cli.key import run
from puna.cli.parsers import parser
from puna.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(keys=tmp_path / "keys.json")


def key(settings, *words):
    run(settings, parser().parse_args(["key", *words]))


def test_a_key_is_made_with_what_was_asked(settings, capsys):
    limits = ("--requests-per-minute", "5", "--concurrent-requests=2", "--tokens-per-day", "100")
    key(settings, "create", "shop", "--allow", "read,models", "--models", "a,b:q4", *limits, "--priority")
    out, err = capsys.readouterr()
    made = KeyFile(settings.keys).find(out.strip())
    assert (made.name, made.allow, made.models) == ("shop", ("read", "models"), ("a", "b:q4"))
    assert (made.requests_per_minute, made.concurrent_requests, made.tokens_per_day) == (5, 2, 100)
    assert (made.priority, made.local) == (True, False)
    assert "shown only now" in err
    assert "every caller needs a key" in err


def test_the_list_shows_use_and_no_secret(settings, capsys):
    key(settings, "create", "shop", "--tokens-per-day", "100")
    made = KeyFile(settings.keys).find(capsys.readouterr().out.strip())
    ledger = Ledger(settings.keys.with_name("usage.json"))
    ledger.spend(made, 40, 2)
    ledger.save()
    key(settings, "list")
    header, row = capsys.readouterr().out.splitlines()
    assert header.split("    ")[0].strip() == "ID"
    assert [cell.strip() for cell in row.split("    ") if cell.strip()] == [
        made.id, "shop", "inference", "all", "100 tokens/day", "0", "42", "in use",
    ]  # fmt: skip
    key(settings, "list", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["usage"]["day_tokens"]) == (made.id, 42)
    assert "digest" not in shown


def test_revoking(settings, capsys):
    key(settings, "create", "shop")
    text = capsys.readouterr().out.strip()
    key(settings, "revoke", "shop")
    assert KeyFile(settings.keys).find(text) is None
    with pytest.raises(CommandError, match="0 keys"):
        key(settings, "revoke", "shop")


@pytest.mark.parametrize("words", [("--allow", "root"), ("--tokens-per-day", "-1"), ("--allow", "")])
def test_bad_values_are_named(settings, words):
    with pytest.raises(CommandError, match=words[0].strip("-").replace("-", "_")):
        key(settings, "create", "shop", *words)
