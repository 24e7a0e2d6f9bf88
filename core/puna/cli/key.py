"""`puna key`: creates, lists and revokes API keys in the file of the server's settings."""

import argparse
import json
import sys
from dataclasses import asdict

from puna.auth.keys import ApiKey, KeyFile, KeyFileError
from puna.auth.usage import Ledger
from puna.cli.errors import CommandError
from puna.cli.tables import table
from puna.settings import Settings


def run(settings: Settings, arguments: argparse.Namespace) -> None:
    """Run the command. CommandError: the file cannot be used, or a value is bad."""
    try:
        keys = KeyFile(settings.keys)
        if arguments.action == "create":
            _create(keys, settings, arguments)
        elif arguments.action == "revoke":
            key = keys.revoke(arguments.key)
            print(f"revoked {key.id} ({key.name})")
        else:
            _list(keys, settings, as_json=arguments.json)
    except KeyFileError as error:
        raise CommandError(str(error)) from error


def _create(keys: KeyFile, settings: Settings, arguments: argparse.Namespace) -> None:
    first = not keys.enabled
    key, text = keys.create(
        name=arguments.name,
        allow=tuple(arguments.allow.split(",")),
        models=tuple(each for each in arguments.models.split(",") if each),
        requests_per_minute=arguments.requests_per_minute,
        concurrent_requests=arguments.concurrent_requests,
        tokens_per_day=arguments.tokens_per_day,
        priority=arguments.priority,
        local=arguments.local,
    )
    print(f"made key {key.id} ({key.name}) in {settings.keys}; it is shown only now:", file=sys.stderr)
    print(text)
    if first:
        print("From now on every caller needs a key.", file=sys.stderr)


def _list(keys: KeyFile, settings: Settings, *, as_json: bool) -> None:
    ledger = Ledger(settings.keys.with_name("usage.json"))
    if as_json:
        for key in keys.listed():
            shown = {name: value for name, value in asdict(key).items() if name != "digest"}
            print(json.dumps(shown | {"usage": asdict(ledger.counts(key.id))}))
        return
    rows = [_row(key, ledger) for key in keys.listed()]
    print(table(("ID", "NAME", "ALLOW", "MODELS", "LIMITS", "REQUESTS", "TOKENS TODAY", "STATE"), rows))


def _row(key: ApiKey, ledger: Ledger) -> tuple[str, ...]:
    counts = ledger.counts(key.id)
    limits = (
        (key.requests_per_minute, "/min"),
        (key.concurrent_requests, " at once"),
        (key.tokens_per_day, " tokens/day"),
    )
    return (
        key.id,
        key.name,
        ",".join(key.allow),
        ",".join(key.models) or "all",
        ", ".join(f"{number}{unit}" for number, unit in limits if number) or "none",
        str(counts.requests),
        str(counts.day_tokens),
        "revoked" if key.revoked else "in use",
    )
