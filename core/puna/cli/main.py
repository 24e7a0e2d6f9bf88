"""The entry point: parses argv and runs a command. A command's module is imported only when it runs."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

from puna.cli import early, terminal
from puna.cli.parsers import parser
from puna.cli.texts import readable
from puna.errors import PunaError, StoreFailedError
from puna.settings import Settings, from_environment

COMPLETE = "__complete"
"""The command that the scripts of `puna completion` call. The parsers do not know it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 success, 1 failure, 2 wrong usage.

    128 and the number of a signal: Ctrl-C ended the command, or the reader of its output has gone.
    """
    terminal.prepare()
    try:
        try:
            status = _command(_texts(sys.argv[1:] if argv is None else argv))
        except PunaError as error:
            status = _fail(str(error))
        except KeyboardInterrupt:
            status = early.status_of(signal.SIGINT)
        except SystemExit:
            # argparse has printed a help text or an error.
            terminal.flush()
            raise
        except terminal.OutputError:
            raise
        except OSError as error:
            status = _fail(str(StoreFailedError(error)))
        terminal.flush()
    except terminal.OutputError as error:
        return terminal.give_up(error)
    return status


def _command(words: Sequence[str]) -> int:
    root = parser()
    if words[:1] == [COMPLETE]:
        from puna.cli.completion import command as completion

        print(completion.complete(root, words[1:]))
        return 0
    arguments = root.parse_args(words)
    if arguments.command in (None, "help"):
        # argparse prints the help and exits; nothing after this line runs.
        root.parse_args([*getattr(arguments, "about", ()), "--help"])
    if arguments.command == "completion":
        from puna.cli.completion import command as completion

        print(completion.script(arguments.shell), end="")
        return 0
    if arguments.command == "config" and arguments.action == "check":
        from puna.cli import config

        return config.run(arguments)
    try:
        # Read after the arguments, so that --help works with a broken configuration file.
        settings = from_environment(os.environ, arguments.config)
    except (OSError, ValueError) as error:
        return _fail(f"the settings cannot be read: {error}")
    return _run(arguments, settings)


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    command = arguments.command
    if command in ("serve", "start", "core", "rest"):
        # Imported here, since a server's imports would slow every other command down.
        from puna.cli.serve import run as run_server

        core, rest = command != "rest", command != "core"
        target = getattr(arguments, "core", None)
        if arguments.log_format:
            settings = replace(settings, log_format=arguments.log_format)
        if getattr(arguments, "launcher", None):
            settings = replace(settings, launcher=arguments.launcher)
        if getattr(arguments, "hosts", None):
            settings = replace(settings, hosts=tuple(each.strip() for each in arguments.hosts.split(",")))
        run_server(settings, core=core, rest=rest, target=target, config=arguments.config)
    if command == "node" and arguments.action == "run":
        from puna.cli.node import run as run_node

        run_node(settings, arguments)
    # Servers never come here: `run_server` does not return.
    early.interruptible()
    if command == "version":
        print(f"puna {version('puna')}")
    elif command in ("plugins", "demo"):
        from puna.cli import listing

        if command == "plugins":
            listing.list_plugins(settings)
        else:
            listing.install_demo(settings)
    elif command == "key":
        from puna.cli import key

        key.run(settings, arguments)
    elif command == "node":
        from puna.cli import node

        node.certificates(arguments.folder)
    elif command == "doctor":
        from puna.cli import doctor

        return asyncio.run(doctor.doctor(settings, arguments))
    elif command == "plugin":
        from puna.cli import plugin

        return plugin.run(settings, arguments)
    elif command == "import":
        from puna.cli import importing

        return asyncio.run(importing.import_models(settings, arguments))
    else:
        asyncio.run(_ask_server(arguments, settings))
    return 0


async def _ask_server(arguments: argparse.Namespace, settings: Settings) -> None:
    from puna.cli import bench, changing, config, create, run, show, top, transfer

    match arguments.command:
        case "list" | "ls" | "ps" | "nodes":
            await _list(arguments, settings)
        case "top":
            await top.top(settings, interval=arguments.interval, once=arguments.once)
        case "bench":
            await bench.bench(
                settings,
                arguments.model,
                streams=arguments.streams,
                prompt_tokens=arguments.prompt_tokens,
                output_tokens=arguments.output_tokens,
                as_json=arguments.json,
            )
        case "config":
            await config.reload(settings)
        case "requests":
            await _requests(arguments, settings)
        case "show":
            await show.run(settings, arguments)
        case "cp":
            await changing.copy(settings, arguments.source, arguments.destination)
        case "rm":
            await changing.remove(settings, arguments.models)
        case "stop":
            await changing.stop(settings, arguments.model)
        case "pull":
            await transfer.pull(settings, arguments.model, insecure=arguments.insecure, as_json=arguments.json)
        case "push":
            await transfer.push(settings, arguments.model, insecure=arguments.insecure, as_json=arguments.json)
        case "create":
            await create.create(settings, arguments)
        case "run":
            await run.run(settings, arguments)


async def _list(arguments: argparse.Namespace, settings: Settings) -> None:
    from puna.cli import listing, nodes

    if arguments.command == "nodes":
        await nodes.list_nodes(settings, as_json=arguments.json)
    elif arguments.command == "ps":
        await listing.list_loaded(settings, arguments.prefix, as_json=arguments.json)
    else:
        await listing.list_models(settings, arguments.prefix, as_json=arguments.json)


async def _requests(arguments: argparse.Namespace, settings: Settings) -> None:
    from puna.cli import records, top

    if arguments.show:
        await records.show(settings, arguments.show, as_json=arguments.json)
    elif arguments.past:
        await records.past(settings, arguments.model, as_json=arguments.json)
    else:
        await top.requests(settings, arguments.model, arguments.cancel, as_json=arguments.json)


def _texts(words: Sequence[str]) -> list[str]:
    """Return arguments with U+FFFD for invalid UTF-8, except names of existing files."""
    return [
        # The name of an existing file must keep its bytes, or the file could not be opened.
        word if word.isascii() or os.path.exists(word) else readable(word)  # noqa: PTH110
        for word in words
    ]


def _fail(text: str) -> int:
    print(f"Error: {text}", file=sys.stderr)
    return 1
