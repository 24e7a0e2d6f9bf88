"""Reading argv. Every command's code is imported when it runs, so that `puna --help` is quick."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from puna.errors import PunaError, StoreFailedError
from puna.settings import Settings, from_environment

SHOW_ONE = ("license", "modelfile", "parameters", "system", "template")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 wrong usage."""
    told = parser().parse_args(argv)
    try:
        settings = from_environment(os.environ, told.config)
    except (OSError, ValueError) as error:
        return _fail(f"the settings cannot be read: {error}")
    try:
        return _run(told, settings)
    except PunaError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(str(StoreFailedError(error)))
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    root = argparse.ArgumentParser(prog="puna", description="A model server: gRPC inside, the Ollama API outside.")
    root.add_argument("-v", "--version", action="version", version=f"puna {version('puna')}")
    root.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    commands = root.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_servers(commands)
    _add_models(commands)
    _add_create(commands)
    _add_upkeep(commands)
    _add_run(commands)
    return root


def _add_servers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    commands.add_parser("serve", aliases=["start"], help="run the core and the REST bridge")
    commands.add_parser("core", help="run the gRPC core alone")
    rest = commands.add_parser("rest", help="run the REST bridge alone")
    rest.add_argument("--core", metavar="HOST:PORT", help="address of the core (default: PUNA_GRPC_HOST)")
    commands.add_parser("plugins", help="list the backends that are installed")
    commands.add_parser("demo", help="put the demo model llamita into the store")
    commands.add_parser("version", help="print the version")


def _add_models(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, alias, text in (("list", ["ls"], "list the models of the store"), ("ps", [], "list the loaded models")):
        each = commands.add_parser(name, aliases=alias, help=text)
        each.add_argument("prefix", nargs="?", default="", help="only names that begin with this")
        each.add_argument("--json", action="store_true", help="for scripts")
    show = commands.add_parser("show", help="tell what a model is")
    show.add_argument("model")
    show.add_argument("--verbose", "-v", action="store_true", help="with metadata and tensors")
    for name in SHOW_ONE:
        show.add_argument(f"--{name}", dest="wanted", action="append_const", const=name, help=f"only its {name}")
    copy = commands.add_parser("cp", help="give a model a second name")
    copy.add_argument("source")
    copy.add_argument("destination")
    remove = commands.add_parser("rm", help="remove models")
    remove.add_argument("models", nargs="+", metavar="model")
    stop = commands.add_parser("stop", help="unload a model")
    stop.add_argument("model")
    for name, text in (("pull", "fetch a model from a registry"), ("push", "send a model to a registry")):
        each = commands.add_parser(name, help=text)
        each.add_argument("model")
        each.add_argument("--insecure", action="store_true", help="speak plain HTTP")
        each.add_argument("--json", action="store_true", help="for scripts")


def _add_create(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    create = commands.add_parser("create", help="make a model out of a Modelfile, another model or a GGUF file")
    create.add_argument("name", help="name of the new model")
    source = create.add_mutually_exclusive_group()
    source.add_argument("-f", "--file", type=Path, help='Modelfile (default: "Modelfile")')
    source.add_argument("--from", dest="source", metavar="MODEL", help="model to start from")
    source.add_argument("--gguf", type=Path, metavar="FILE", help="GGUF file to start from")
    create.add_argument("-q", "--quantize", metavar="TYPE", help="type to quantize to, such as Q4_K_M")
    create.add_argument("--backend", default="", help="backend that shall run it (default: by format)")
    create.add_argument("--template", default="", help="Go template")
    create.add_argument("--system", default="", help="system message")
    create.add_argument("--json", action="store_true", help="for scripts")


def _add_upkeep(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    imports = commands.add_parser("import", help="make models of GGUF files that stay where they are")
    imports.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="GGUF file, or folder to look through")
    imports.add_argument("--name", default="", help="what to call the model, if there is just one")
    imports.add_argument("--link", choices=("auto", "hard", "symbolic", "copy"), default="auto", help="how it is kept")
    imports.add_argument("--replace", action="store_true", help="models that have the names already lose them")
    imports.add_argument("--dry-run", action="store_true", help="only say what would be done")
    imports.add_argument("--backend", default="", help="backend that shall run them (default: by format)")
    imports.add_argument("--json", action="store_true", help="for scripts")
    doctor = commands.add_parser("doctor", help="look for damage in the store; status 1 if there is any")
    doctor.add_argument("--repair", action="store_true", help="repair what can be")
    doctor.add_argument("--quick", action="store_true", help="read only blobs that look as if they had been written to")
    doctor.add_argument("--offline", action="store_true", help="look at the folder itself, without a server")
    doctor.add_argument("--json", action="store_true", help="for scripts")


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = commands.add_parser("run", help="talk to a model")
    run.add_argument("model")
    run.add_argument("prompt", nargs="*")
    run.add_argument("--format", default="", help="json, or a JSON Schema")
    run.add_argument("--think", nargs="?", const="true", default="", help="true, false, low, medium, high or max")
    run.add_argument("--hidethinking", action="store_true", help="do not show the thinking")
    run.add_argument("--keepalive", default="", help="how long the model stays loaded, such as 5m")
    run.add_argument("--verbose", action="store_true", help="show counts and durations")
    run.add_argument("--nowordwrap", action="store_true", help="accepted; the terminal wraps")
    run.add_argument("--insecure", action="store_true", help="pull by plain HTTP")


def _run(told: argparse.Namespace, settings: Settings) -> int:
    command = told.command
    if command in ("serve", "start", "core", "rest"):
        from puna.cli.serve import run as run_server

        core, rest = command != "rest", command != "core"
        return run_server(settings, core=core, rest=rest, target=getattr(told, "core", None))
    if command == "version":
        print(f"puna {version('puna')}")
    elif command in ("plugins", "demo"):
        from puna.cli import listing

        if command == "plugins":
            listing.list_plugins()
        else:
            listing.install_demo(settings)
    elif command == "doctor":
        from puna.cli import doctor

        return asyncio.run(doctor.doctor(settings, told))
    elif command == "import":
        from puna.cli import importing

        return asyncio.run(importing.import_models(settings, told))
    else:
        asyncio.run(_ask_server(told, settings))
    return 0


async def _ask_server(told: argparse.Namespace, settings: Settings) -> None:
    from puna.cli import changing, create, listing, run, show, transfer

    match told.command:
        case "list" | "ls":
            await listing.list_models(settings, told.prefix, as_json=told.json)
        case "ps":
            await listing.list_loaded(settings, told.prefix, as_json=told.json)
        case "show":
            await show.show(settings, told.model, told.wanted or [], verbose=told.verbose)
        case "cp":
            await changing.copy(settings, told.source, told.destination)
        case "rm":
            await changing.remove(settings, told.models)
        case "stop":
            await changing.stop(settings, told.model)
        case "pull":
            await transfer.pull(settings, told.model, insecure=told.insecure, as_json=told.json)
        case "push":
            await transfer.push(settings, told.model, insecure=told.insecure, as_json=told.json)
        case "create":
            await create.create(settings, told)
        case "run":
            await run.run(settings, told)


def _fail(text: str) -> int:
    print(f"Error: {text}", file=sys.stderr)
    return 1
