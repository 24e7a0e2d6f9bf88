"""The parsers of all commands: their options, positional arguments and help texts."""

import argparse
from importlib.metadata import version
from pathlib import Path

from puna import request_log
from puna.auth.permissions import GRANTS
from puna.cli.arguments import Command, Program, environment
from puna.variables import BRIDGE, CLIENT, CORE, help_line, read_by, variable

LIMITS = (("PUNA_MAX_...", "limits; SECURITY.md lists them"),)
REGISTRIES = (("PUNA_REGISTRY_...", "registries and credentials; core/README.md lists them"),)
ASKING = environment(help_line("PUNA_GRPC_HOST"))
NO_ACCOUNT = "Puna has no account at ollama.com; PUNA_REGISTRY_... hold the credentials of registries (core/README.md)"
ABSENT = {
    **dict.fromkeys(("signin", "login", "signout", "logout"), NO_ACCOUNT),
    "launch": "Puna starts no other programs; they reach it at the address of OLLAMA_HOST, as they reach Ollama",
}
"""Commands of Ollama that Puna lacks, and the error of each."""
SHELLS = ("bash", "fish", "zsh")
COMPLETION = """to switch it on:
  bash  add to ~/.bashrc: eval "$(puna completion bash)"
  zsh   add to ~/.zshrc, behind compinit: eval "$(puna completion zsh)"
  fish  puna completion fish > ~/.config/fish/completions/puna.fish"""
SHOW_ONE = ("license", "modelfile", "parameters", "system", "template")


def parser() -> Program:
    """Return the parser of the command line."""
    root = Program(
        prog="puna",
        description="A model server: gRPC inside, the Ollama API outside.",
        bare=("--verbose", "--nowordwrap"),
        absent=ABSENT,
    )
    root.add_argument("-v", "--version", action="version", version=f"puna {version('puna')}")
    root.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", parser_class=Command)
    _add_servers(commands)
    _add_models(commands)
    _add_create(commands)
    _add_upkeep(commands)
    _add_run(commands)
    _add_key(commands)
    _add_node(commands)
    config = commands.add_parser("config", help="check the configuration file, or have a server read it again")
    actions = config.add_subparsers(dest="action", metavar="ACTION", parser_class=Command, required=True)
    check = actions.add_parser("check", help="name each mistake of the file with its line; status 1 if there is any")
    check.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the file (default: that of --config)")
    actions.add_parser("reload", help="have the server read its configuration again", epilog=ASKING)
    _add_plugin(commands)
    completion = commands.add_parser(
        "completion", help="print the script with which a shell completes commands and names", epilog=COMPLETION
    )
    completion.add_argument("shell", choices=SHELLS)
    helping = commands.add_parser("help", help="show help on a command")
    helping.add_argument("about", nargs="*", metavar="COMMAND", help="command, and its action if it has some")
    for each in (*set(commands.choices.values()), *actions.choices.values()):
        # Where no value is given, the program's own option, which stands in front of the command, keeps its value.
        each.add_argument(
            "--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="TOML file with settings"
        )
    return root


def _variables(*programs: str) -> str:
    """Return the section of a help text that names the variables of a server."""
    registries = REGISTRIES if CORE in programs else ()
    return environment(*map(help_line, read_by(*programs)), *registries, *LIMITS)


def _add_servers(commands: "argparse._SubParsersAction[Command]") -> None:
    served = _variables(CORE, BRIDGE)
    both = commands.add_parser("serve", aliases=["start"], help="run the core and the REST bridge", epilog=served)
    core = commands.add_parser("core", help="run the gRPC core alone", epilog=_variables(CORE))
    rest = commands.add_parser(
        "rest",
        help="run the REST bridge alone",
        epilog=_variables(BRIDGE),
    )
    rest.add_argument("--core", metavar="HOST:PORT", help="address of the core (default: PUNA_GRPC_HOST)")
    for each in (both, core, rest):
        if each is not rest:
            each.add_argument("--launcher", choices=variable("PUNA_LAUNCHER").choices, help="(default: PUNA_LAUNCHER)")
            each.add_argument("--hosts", metavar="HOST:PORT,...", help="addresses of nodes (default: PUNA_HOSTS)")
        each.add_argument(
            "--log-format", choices=request_log.FORMS, help="form of log lines (default: PUNA_LOG_FORMAT)"
        )
    commands.add_parser("plugins", help="list the backends that are installed")
    store = environment(help_line("OLLAMA_MODELS"))
    commands.add_parser("demo", help="put the demo models llamita and llamita-embed into the store", epilog=store)
    commands.add_parser("version", help="print the version")


def _add_models(commands: "argparse._SubParsersAction[Command]") -> None:
    for name, alias, text in (("list", ["ls"], "list the models of the store"), ("ps", [], "list the loaded models")):
        each = commands.add_parser(name, aliases=alias, help=text, epilog=ASKING)
        each.add_argument("prefix", nargs="?", default="", help="only names that begin with this")
        each.add_flag("--json", help="for scripts")
    show = commands.add_parser("show", help="show facts about a model", epilog=ASKING)
    show.add_argument("model")
    show.add_flag("--verbose", "-v", help="with metadata and tensors")
    for name in SHOW_ONE:
        show.add_argument(f"--{name}", dest="wanted", action="append_const", const=name, help=f"only its {name}")
    show.add_flag("--fit", help="the memory that it would take, and the longest context that fits")
    show.add_argument("--context-length", type=int, default=0, metavar="N", help="of each slot, with --fit")
    show.add_argument("--slots", type=int, default=0, metavar="N", help="number of slots, with --fit")
    show.add_argument("--kv-cache-type", default="", metavar="TYPE", help="such as q8_0, with --fit")
    top = commands.add_parser("top", help="show models and requests, live", epilog=ASKING)
    top.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="pause between looks (default: 1)")
    top.add_flag("--once", help="show one look and end")
    bench = commands.add_parser("bench", help="measure how fast this machine runs a model", epilog=ASKING)
    bench.add_argument("model")
    bench.add_argument(
        "--streams", default="1,4,16", metavar="LIST", help="numbers of streams at once (default: 1,4,16)"
    )
    bench.add_argument("--prompt-tokens", type=int, default=256, metavar="N", help="about (default: 256)")
    bench.add_argument("--output-tokens", type=int, default=128, metavar="N", help="at most (default: 128)")
    bench.add_flag("--json", help="for scripts")
    nodes = commands.add_parser("nodes", help="list the machines that run models for the server", epilog=ASKING)
    nodes.add_flag("--json", help="for scripts")
    requests = commands.add_parser("requests", help="list, show or cancel requests", epilog=ASKING)
    requests.add_argument("model", nargs="?", default="", help="only those of this model")
    requests.add_flag("--past", help="list also the last ones that have ended (PUNA_RECORDS)")
    requests.add_argument("--show", default="", metavar="ID", help="show one of them with its texts: its id or number")
    requests.add_argument("--cancel", action="append", default=[], metavar="ID", help="cancel the request of this id")
    requests.add_flag("--json", help="for scripts")
    copy = commands.add_parser("cp", help="give a model a second name", epilog=ASKING)
    copy.add_argument("source")
    copy.add_argument("destination")
    remove = commands.add_parser("rm", help="remove models", epilog=ASKING)
    remove.add_argument("models", nargs="+", metavar="model")
    stop = commands.add_parser("stop", help="unload a model", epilog=ASKING)
    stop.add_argument("model")
    for name, text in (("pull", "fetch a model from a registry"), ("push", "send a model to a registry")):
        each = commands.add_parser(name, help=text, epilog=ASKING)
        each.add_argument("model")
        each.add_flag("--insecure", help="speak plain HTTP")
        each.add_flag("--json", help="for scripts")


def _add_create(commands: "argparse._SubParsersAction[Command]") -> None:
    create = commands.add_parser(
        "create", help="make a model out of a Modelfile, another model, or files of any format", epilog=ASKING
    )
    create.add_argument("name", help="name of the new model")
    source = create.add_mutually_exclusive_group()
    source.add_argument(
        "-f",
        "--file",
        type=Path,
        help='Modelfile (default: "Modelfile"); with --backend or --format also a model\'s file',
    )
    source.add_argument("--folder", type=Path, help="folder of a model's files")
    source.add_argument("--upstream", default="", metavar="MODEL", help="name of a model where the backend forwards to")
    source.add_argument("--from", dest="source", metavar="MODEL", help="model to start from")
    source.add_argument("--gguf", type=Path, metavar="FILE", help="GGUF file to start from")
    create.add_argument("-q", "--quantize", metavar="TYPE", help="type to quantize to, such as Q4_K_M")
    create.add_argument("--backend", default="", help="backend that runs it (default: by format)")
    create.add_argument("--format", default="", help="format of the files (default: the one that the backend serves)")
    create.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="option of the backend; may be repeated"
    )
    create.add_argument(
        "--capability",
        action="append",
        default=[],
        metavar="NAME",
        help="capability of the model, such as tools (default: all that the backend has); may be repeated",
    )
    # Ollama's: it stores safetensors as they are, and Puna converts them in any case.
    create.add_flag("--experimental", help=argparse.SUPPRESS)
    create.add_argument("--template", default="", help="Go template")
    create.add_argument("--system", default="", help="system message")
    create.add_flag("--json", help="for scripts")


def _add_upkeep(commands: "argparse._SubParsersAction[Command]") -> None:
    imports = commands.add_parser("import", help="make models of files that stay where they are", epilog=ASKING)
    imports.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="GGUF file, or folder to look through")
    imports.add_argument("--format", default="", help="other format: each PATH is a model, with all files of a folder")
    imports.add_argument("--name", default="", help="name of the model, if there is just one")
    imports.add_argument("--link", choices=("auto", "hard", "symbolic", "copy"), default="auto", help="how it is kept")
    imports.add_flag("--replace", help="replace models that have the names already")
    imports.add_flag("--dry-run", help="say what would be done, and do nothing")
    imports.add_argument("--backend", default="", help="backend that runs them (default: by format)")
    imports.add_flag("--json", help="for scripts")
    doctor = commands.add_parser(
        "doctor",
        help="look for damage in the store; status 1 if there is any",
        epilog=environment(help_line("PUNA_GRPC_HOST"), help_line("OLLAMA_MODELS")),
    )
    doctor.add_flag("--repair", help="repair what can be")
    doctor.add_flag("--quick", help="read only blobs that look as if they had been written to")
    doctor.add_flag("--formats", help="say only what this version would change in the files of an older one")
    doctor.add_flag("--offline", help="look at the folder itself, without a server")
    doctor.add_flag("--json", help="for scripts")


def _add_run(commands: "argparse._SubParsersAction[Command]") -> None:
    run = commands.add_parser("run", help="talk to a model", epilog=environment(*map(help_line, read_by(CLIENT))))
    run.add_argument("model")
    run.add_argument("prompt", nargs="*")
    run.add_argument("--format", default="", help="json, or a JSON Schema")
    run.add_optional("--think", alone="true", help="true, false, low, medium, high or max")
    run.add_flag("--hidethinking", help="do not show the thinking")
    run.add_argument("--keepalive", default="", help="how long the model stays loaded, such as 5m")
    run.add_flag("--verbose", help="show counts and durations")
    run.add_flag("--nowordwrap", help="do not break lines between words")
    run.add_flag("--insecure", help="pull by plain HTTP")
    run.add_argument("--dimensions", type=int, default=0, help="length of the vector of an embedding model")
    run.add_flag("--truncate", default=True, help="cut a text that an embedding model has no room for (default: true)")


def _add_key(commands: "argparse._SubParsersAction[Command]") -> None:
    key = commands.add_parser("key", help="manage API keys", epilog=environment(help_line("PUNA_KEYS")))
    actions = key.add_subparsers(dest="action", metavar="ACTION", parser_class=Command, required=True)
    create = actions.add_parser("create", help="make a key and print it")
    create.add_argument("name", help="who uses it")
    create.add_argument("--allow", default="inference", help=f"{', '.join(GRANTS)} (default: inference)")
    create.add_argument("--models", default="", help="names of models with * and ?, separated by commas (default: all)")
    create.add_argument("--requests-per-minute", type=int, default=0, metavar="N", help="limit (default: none)")
    create.add_argument("--concurrent-requests", type=int, default=0, metavar="N", help="limit (default: none)")
    create.add_argument("--tokens-per-day", type=int, default=0, metavar="N", help="limit (default: none)")
    create.add_flag("--priority", help="its requests may set their priority")
    create.add_flag("--local", help="its requests may name files on the server's disk")
    listing = actions.add_parser("list", aliases=["ls"], help="list the keys and their usage")
    listing.add_flag("--json", help="for scripts")
    revoke = actions.add_parser("revoke", help="revoke a key")
    revoke.add_argument("key", help="its id, or its name")


def _add_node(commands: "argparse._SubParsersAction[Command]") -> None:
    folder = environment(help_line("PUNA_CLUSTER_TLS"))
    node = commands.add_parser("node", help="run model hosts for a core on another machine", epilog=folder)
    actions = node.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Command)
    running = actions.add_parser("run", help="run hosts for the core that connects", epilog=folder)
    running.add_argument(
        "--listen", default="127.0.0.1:11436", metavar="HOST:PORT", help="address (default: 127.0.0.1:11436)"
    )
    running.add_argument(
        "--lease", type=float, default=10.0, metavar="SECONDS", help="silence after which a core is gone (default: 10)"
    )
    running.add_flag("--exit-with-core", help="end once the core is gone, or needs the node no more")
    # A launcher starts nodes with it; see puna.node.supervision.
    running.add_flag("--supervised", help=argparse.SUPPRESS)
    running.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="where files of models from the core are kept (default: PUNA_NODE_CACHE)",
    )
    running.add_argument(
        "--cache-bytes",
        type=int,
        metavar="N",
        help="bytes of these files (default: PUNA_MAX_NODE_CACHE_BYTES, 200 GiB)",
    )
    certificates = actions.add_parser("certificates", help="make the certificates of a cluster")
    certificates.add_argument(
        "folder", nargs="?", type=Path, metavar="FOLDER", help="where (default: cluster, beside the configuration)"
    )


def _add_plugin(commands: "argparse._SubParsersAction[Command]") -> None:
    folder = environment(help_line("PUNA_PLUGINS_FOLDER"))
    plugin = commands.add_parser("plugin", help="write, install, upgrade, check and remove plugins", epilog=folder)
    actions = plugin.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Command)
    new = actions.add_parser("new", help="write a distribution with a working backend and its tests")
    new.add_argument("name", help="name of the backend; the folder is named puna-NAME")
    new.add_argument("--folder", type=Path, default=Path(), metavar="FOLDER", help="where to write it (default: here)")
    install = actions.add_parser(
        "install", help="install a plugin into an environment of its own, in place of an older one", epilog=folder
    )
    install.add_argument("spec", help="name on the package index, path of a wheel or folder, or URL, also of Git")
    install.add_flag("-e", "--editable", help="install a folder so that each load takes its current source")
    install.add_argument("--python", default="", metavar="VERSION", help="version or path of another Python for it")
    for action, nargs, text in (
        ("upgrade", "*", "install plugins again from where they came; all of them if none is named"),
        ("remove", "+", "remove plugins; their loaded models go on"),
        ("check", "*", "check manifests, start hosts, and test the models that plugins bring for that"),
    ):
        each = actions.add_parser(action, help=text, epilog=folder)
        each.add_argument("names", nargs=nargs, metavar="NAME", help="name of a plugin or of one of its backends")
    listing = actions.add_parser("list", aliases=["ls"], help="list the backends", epilog=folder)
    listing.add_flag("--json", help="for scripts")
