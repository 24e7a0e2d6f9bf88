"""Reading argv. Every command's code is imported when it runs, so that `puna --help` is quick."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from puna.errors import PunaError
from puna.settings import Settings, from_environment


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 wrong usage."""
    arguments = parser().parse_args(argv)
    try:
        settings = from_environment(os.environ, arguments.config)
    except (OSError, ValueError) as error:
        return _fail(f"the settings cannot be read: {error}")
    try:
        return _run(arguments, settings)
    except PunaError as error:
        return _fail(str(error))


def parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    root = argparse.ArgumentParser(prog="puna", description="A model server: gRPC inside, the Ollama API outside.")
    root.add_argument("--version", action="version", version=f"puna {version('puna')}")
    root.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    commands = root.add_subparsers(required=True, dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="run the core and the REST bridge")
    commands.add_parser("core", help="run the gRPC core alone")
    rest = commands.add_parser("rest", help="run the REST bridge alone")
    rest.add_argument("--core", metavar="HOST:PORT", help="address of the core (default: PUNA_GRPC_HOST)")
    commands.add_parser("plugins", help="list the backends that are installed")
    commands.add_parser("demo", help="put the demo model llamita into the store")
    commands.add_parser("version", help="print the version")
    create = commands.add_parser("create", help="make a model out of another or of a GGUF file")
    create.add_argument("name", help="name of the new model")
    source = create.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", dest="source", metavar="MODEL", help="model to start from")
    source.add_argument("--gguf", type=Path, metavar="FILE", help="GGUF file to start from")
    create.add_argument("--backend", default="", help="backend that shall run it (default: by format)")
    create.add_argument("--template", default="", help="Go template")
    create.add_argument("--system", default="", help="system message")
    return root


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    command = arguments.command
    if command == "version":
        print(f"puna {version('puna')}")
        return 0
    if command == "plugins":
        from puna.cli.listing import list_plugins

        return list_plugins()
    if command == "demo":
        from puna.cli.listing import install_demo

        return install_demo(settings)
    if command == "create":
        from puna.cli.create import create

        return asyncio.run(create(settings, arguments))
    from puna.cli.serve import run

    return run(
        settings,
        core=command in ("serve", "core"),
        rest=command in ("serve", "rest"),
        target=getattr(arguments, "core", None),
    )


def _fail(text: str) -> int:
    print(f"Error: {text}", file=sys.stderr)
    return 1
