"""The manifest of a backend, `backend.toml`: its fields, and how it is read and checked.

plugins/README.md describes the file for authors. A manifest is untrusted data: it is bounded in size, each field is
checked, and an unknown field is an error, so that a misspelt one is noticed. Nothing that it names is imported or run.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from puna.backend import CONTRACT_VERSION
from puna.capabilities import AUDIO, COMPLETION, EMBEDDING, THINKING, TOOLS, VISION
from puna.plugins.option import Option, read_options
from puna.plugins.table import ManifestError, Table

__all__ = ["Capabilities", "Host", "Manifest", "ManifestError", "read"]

MAX_BYTES: Final = 64 << 10
"""Bytes of a manifest."""
CONSTRAINTS: Final = ("json_schema", "gbnf", "lark", "regex")
SAMPLING: Final = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty"),
    *("frequency_penalty", "seed", "logit_bias", "shift"),
)

NAME: Final = r"[a-z0-9_-]{1,64}"
NAME_FORM: Final = "1 to 64 characters out of a-z, 0-9, _ and -"
_IDENTIFIER: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_MODULE: Final = rf"{_IDENTIFIER}(\.{_IDENTIFIER})*"
CLASS: Final = rf"{_MODULE}:{_MODULE}"
CLASS_FORM: Final = 'a class in the form "module:Class"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """How the host process of a backend is started, and what it serves. Exactly one of class and command is set."""

    python_class: str = ""
    """The Backend class, "module:Class", which `python -m puna.host` loads."""
    command: tuple[str, ...] = ()
    """A program and its arguments. A program with a slash is relative to the manifest's folder."""
    shared: bool = False
    """Whether one process serves all models of the backend."""
    shares_weights: bool = False
    """True if one process serves the models that have the same weights and differ in their adapters."""
    environment: tuple[str, ...] = ()
    """Names of further environment variables that the process inherits; a name may end with `*`."""
    memory: bool = True
    """Whether its models take memory of this machine. Others do not count towards OLLAMA_MAX_LOADED_MODELS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do at all. The facts of a loaded model may say less."""

    chat: bool = False
    """It takes messages, tools and thinking itself; the core renders and parses nothing."""
    tokenizer: bool = True
    logprobs: bool = False
    prompt_logprobs: bool = False
    """It gives the log-probabilities of the tokens of a prompt."""
    embeddings: bool = False
    rerank: bool = False
    vision: bool = False
    audio: bool = False
    tools: bool = False
    """At chat level only."""
    thinking: bool = False
    """At chat level only."""
    thinking_budget: bool = False
    """It closes the thinking when a budget of tokens is spent."""
    lists_models: bool = False
    """It has models of its own, which need no create."""
    memory_estimate: bool = False
    """It estimates the memory of a model before it is loaded."""
    constraints: tuple[str, ...] = ()
    """Kinds of structured output that it enforces."""
    sampling: tuple[str, ...] = ()
    """Sampling parameters that it obeys."""

    @property
    def of_models(self) -> tuple[str, ...]:
        """The capabilities that its models can have, under Ollama's names."""
        known = {VISION: self.vision, AUDIO: self.audio, TOOLS: self.tools, THINKING: self.thinking}
        return (COMPLETION, *(name for name, has in (known | {EMBEDDING: self.embeddings}).items() if has))

    def names(self) -> tuple[str, ...]:
        """Return the names of the switches that are on."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name) is True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The small model with which `puna plugin check` runs the contract tests."""

    model: str = ""
    """Its path, relative to the manifest's folder; empty: there is none."""
    prompt: str = "Why is the sky blue?"
    context_length: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A checked manifest."""

    name: str
    contract: int = CONTRACT_VERSION
    description: str = ""
    formats: tuple[str, ...] = ()
    """Model formats that it serves; empty for a backend without files."""
    preference: int = 0
    """Decides who serves a model that names no backend: the largest preference wins, then the first name."""
    requires: tuple[str, ...] = ()
    """Top-level Python modules without which the host cannot load a model. They are looked up, not imported."""
    install: str = ""
    """The shell command that installs what `requires` names."""
    quantizer: str = ""
    """The module of a program that rewrites GGUF files; empty: none. plugins/README.md describes the program."""
    host: Host = field(default_factory=Host)
    options: Mapping[str, Option] = field(default_factory=dict)
    """The options that it declares, by name."""
    required_options: tuple[str, ...] = ()
    """Options without which no model can be loaded."""
    capabilities: Capabilities = Capabilities()
    check: Check = Check()
    path: Path = Path()
    """The file that it was read from."""

    def options_schema(self) -> dict[str, object]:
        """Return the options as the JSON Schema of an object."""
        properties = {name: {**each.schema, "x-scope": each.scope} for name, each in self.options.items()}
        required = {"required": list(self.required_options)} if self.required_options else {}
        return {"type": "object", "properties": properties, "additionalProperties": False, **required}


def read(path: Path, *, python_class: str = "") -> Manifest:
    """Read and check a manifest. `python_class` is the default of `host.class`.

    Raises ManifestError, whose text begins with the path, for a file that cannot be read or has a wrong field.
    """
    try:
        return _checked(Table(_toml(path)), path, python_class)
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from error


def _toml(path: Path) -> Mapping[str, object]:
    try:
        # Opening a named pipe would wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ManifestError("it is not a file")
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ManifestError(f"it has more than {MAX_BYTES} bytes")
        return tomllib.loads(raw.decode())
    except OSError as error:
        raise ManifestError(f"it cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ManifestError("it is not UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ManifestError(f"it is not TOML: {error}") from error


def _checked(table: Table, path: Path, python_class: str) -> Manifest:
    # The version comes first: the fields of another version may have other meanings.
    contract = table.whole("contract")
    if contract != CONTRACT_VERSION:
        which = "a newer Puna" if contract > CONTRACT_VERSION else "a newer version of the plugin"
        raise ManifestError(
            f"contract: the plugin needs version {contract} of the backend contract, and this Puna speaks version "
            f"{CONTRACT_VERSION}: {which} is needed"
        )
    options, required = read_options(table.table("options"))
    manifest = Manifest(
        contract=contract,
        name=table.text("name", pattern=NAME, form=NAME_FORM),
        description=table.text("description", ""),
        formats=table.texts("formats", None, pattern=r"[a-z0-9_.+-]{1,64}", form="names of formats in lower case"),
        preference=table.whole("preference", 0),
        requires=table.texts("requires", pattern=_IDENTIFIER, form="names of top-level Python modules"),
        install=table.text("install", ""),
        quantizer=table.text("quantizer", "", pattern=_MODULE, form="the name of a Python module"),
        host=_host(table.table("host"), python_class),
        options=options,
        required_options=required,
        capabilities=_capabilities(table.table("capabilities")),
        check=_check(table.table("check")),
        path=path,
    )
    table.end()
    return manifest


def _host(table: Table, python_class: str) -> Host:
    has_command = "command" in table
    if has_command and "class" in table:
        raise ManifestError("host: has either a class or a command, not both")
    named = table.text("class", "", pattern=CLASS, form=CLASS_FORM)
    host = Host(
        python_class="" if has_command else named or python_class,
        command=table.texts("command"),
        shared=table.flag("shared", default=False),
        shares_weights=table.flag("shares_weights", default=False),
        environment=table.texts("environment", pattern=rf"{_IDENTIFIER}\*?", form="names of environment variables"),
        memory=table.flag("memory", default=True),
    )
    table.end()
    if has_command and not (host.command and host.command[0]):
        raise ManifestError("host.command: must name a program")
    if not has_command and not host.python_class:
        raise ManifestError("host: needs a class or a command")
    return host


def _check(table: Table) -> Check:
    default = Check()
    check = Check(
        model=table.text("model", ""),
        prompt=table.text("prompt", default.prompt),
        context_length=table.whole("context_length", default.context_length),
    )
    table.end()
    return check


def _capabilities(table: Table) -> Capabilities:
    flags = {
        each.name: table.flag(each.name, default=each.default)
        for each in fields(Capabilities)
        if isinstance(each.default, bool)
    }
    capabilities = Capabilities(
        **flags,
        constraints=table.choices("constraints", CONSTRAINTS),
        sampling=table.choices("sampling", SAMPLING),
    )
    table.end()
    for name in ("tools", "thinking"):
        if flags[name] and not capabilities.chat:
            raise ManifestError(f"capabilities.{name}: belongs to the chat level; capabilities.chat must be true")
    return capabilities
