"""The configuration file: reads it, and finds every mistake in it with its line.

The file is TOML. Its keys are the variables of `puna.variables` in lower case without their prefix, so `max_queue` is
OLLAMA_MAX_QUEUE and `expose` is PUNA_EXPOSE. Its tables are [limits], [backends.NAME], [secrets], [model.NAME] and
[model_sets]; `puna.model_settings` reads the last two. A variable of the environment wins over the file.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from puna.errors import PunaError
from puna.go.duration import parse_seconds
from puna.limits import Limits
from puna.model_settings import ConfiguredModels, read_models
from puna.replica_count import ReplicaCount
from puna.variables import VARIABLES, Variable

TABLES: Final = ("limits", "backends", "secrets", "model", "model_sets")
_PART: Final = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[\w-]+)"""
_PATH: Final = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE: Final = re.compile(rf"\s*\[\s*({_PATH})\s*\]\s*(?:#.*)?")
_KEY: Final = re.compile(rf"\s*({_PATH})\s*=")


FILE_KEYS: Final = {
    "default_backend": "backend",
    "backend_options": "backends",
    "model_settings": "model",
    "no_prune": "noprune",
}
"""The keys and tables of the file whose fields in puna.settings have other names."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in the file."""

    line: int
    """Counted from 1; 0: unknown."""
    text: str


class ConfigurationError(ValueError):
    """The file has mistakes. The text has a line for each: `FILE:LINE: what is wrong`."""

    def __init__(self, path: Path, mistakes: list[Mistake]) -> None:
        """`mistakes` is not empty."""
        self.mistakes = tuple(sorted(mistakes, key=lambda each: each.line))
        places = (f"{path}:{each.line}: " if each.line else f"{path}: " for each in self.mistakes)
        super().__init__("\n".join(place + each.text for place, each in zip(places, self.mistakes, strict=True)))


class ConfigurationInvalidError(PunaError):
    """The configuration file cannot be read, or has mistakes. The text names each with its line."""

    reason = "CONFIGURATION_INVALID"


class Adopted(NamedTuple):
    """The differences that a reload has found, by the keys of the file."""

    changed: list[str]
    """Settings that have changed."""
    pending: list[str]
    """Settings that change with the next start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The content of a file."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """The values as the environment would hold them, by the variables' names."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    backends: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)
    models: ConfiguredModels = field(default_factory=ConfiguredModels)


class Overlay(Mapping[str, str]):
    """The environment over the values of the file. An empty variable counts as unset."""

    def __init__(self, environ: Mapping[str, str], file: Mapping[str, str]) -> None:
        self._environ = environ
        self._file = file

    def __getitem__(self, name: str) -> str:
        return self._environ.get(name) or self._file[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._file, **self._environ})

    def __len__(self) -> int:
        return len({**self._file, **self._environ})


def load(path: Path) -> Configuration:
    """Read a file. Raises ConfigurationError with all mistakes, and OSError if it cannot be read."""
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(path, [Mistake(line, "it is not valid UTF-8")]) from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"(.*) \(at line (\d+)", str(error))
        mistake = Mistake(int(found[2]), found[1]) if found else Mistake(text.count("\n") + 1, str(error))
        raise ConfigurationError(path, [mistake]) from None
    lines = _lines(text)
    mistakes: list[Mistake] = []

    def wrong(place: tuple[str, ...], what: str) -> None:
        # A key of an inline table has no line of its own.
        known = (lines[place[:size]] for size in range(len(place), 0, -1) if place[:size] in lines)
        mistakes.append(Mistake(next(known, 0), f"{'.'.join(place)}: {what}"))

    variables = _variables(table, wrong)
    _check_tables(table, wrong)
    models = read_models(table.get("model", {}), table.get("model_sets", {}), wrong)
    if mistakes:
        raise ConfigurationError(path, mistakes)
    return Configuration(
        variables=variables,
        limits=table.get("limits", {}),
        backends=table.get("backends", {}),
        secrets=table.get("secrets", {}),
        models=models,
    )


def _variables(table: Mapping[str, Any], wrong: Callable[[tuple[str, ...], str], None]) -> dict[str, str]:
    by_key = {each.key: each for each in VARIABLES if each.key}
    found: dict[str, str] = {}
    for key, value in table.items():
        if key in TABLES:
            continue
        variable = by_key.get(key)
        if variable is None:
            near = difflib.get_close_matches(key, [*by_key, *TABLES], 1)
            wrong((key,), "there is no such setting" + (f"; perhaps {near[0]}" if near else ""))
            continue
        if key == "models" and isinstance(value, dict):
            wrong((key,), 'it is the folder of the models; the settings of a model stand in the table [model."NAME"]')
        elif why := _fault(variable, value):
            wrong((key,), why)
        else:
            found[variable.name] = _text(value)
    return found


def _fault(variable: Variable, value: object) -> str:
    """Return why a value does not fit a variable; empty if it does."""
    match variable.kind:
        case "boolean":
            return "" if isinstance(value, bool) else "it must be true or false"
        case "integer":
            # OLLAMA_DEBUG is a level, and true is level 1.
            fits = (type(value) is int and value >= 0) or (variable.name == "OLLAMA_DEBUG" and isinstance(value, bool))
            return "" if fits else "it must be a whole number, not negative"
        case "duration":
            return "" if _is_duration(value) else 'it must be a duration, such as "5m" or a number of seconds'
        case "range":
            return _fault_of_range(value)
        case "list":
            if not isinstance(value, list) or not all(isinstance(each, str) and "," not in each for each in value):
                return "it must be a list of texts without commas"
            unknown = [each for each in value if variable.choices and each not in variable.choices]
            return f"there is no {unknown[0]!r}; the names are {', '.join(variable.choices)}" if unknown else ""
        case _:
            if not isinstance(value, str):
                return "it must be a text"
            known = not variable.choices or value in variable.choices
            return "" if known else f"it must be {' or '.join(variable.choices)}"


def _fault_of_range(value: object) -> str:
    try:
        ReplicaCount.parse(value)
    except ValueError as error:
        return str(error)
    return ""


def _is_duration(value: object) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return True
    try:
        parse_seconds(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return ",".join(value) if isinstance(value, list) else str(value)


def _check_tables(table: Mapping[str, Any], wrong: Callable[[tuple[str, ...], str], None]) -> None:
    bounds = {each.name for each in fields(Limits)}
    for name in ("limits", "backends", "secrets"):
        if not isinstance(table.get(name, {}), dict):
            wrong((name,), "it must be a table")
            return
    for key, value in table.get("limits", {}).items():
        if key not in bounds:
            near = difflib.get_close_matches(key, bounds, 1)
            wrong(("limits", key), "there is no such limit" + (f"; perhaps {near[0]}" if near else ""))
        elif isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            wrong(("limits", key), "it must be a number, not negative; 0 means no limit")
    for name, value in table.get("backends", {}).items():
        if not isinstance(value, dict):
            wrong(("backends", name), "it must be a table of the backend's options")
    for name, value in table.get("secrets", {}).items():
        named = isinstance(value, dict) and len(value) == 1 and value.keys() <= {"file", "env"}
        if not isinstance(value, str) and not (named and isinstance(next(iter(value.values())), str)):
            wrong(("secrets", name), 'it must be a text, { file = "PATH" } or { env = "NAME" }')


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the lines of keys and tables, by their path. tomllib keeps none.

    A line inside a string of several lines may look like a key. It then hides nothing: the first line of a path counts.
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.fullmatch(line):
            path = table = _path(header[1])
        elif key := _KEY.match(line):
            path = (*table, *_path(key[1]))
        else:
            continue
        # A dotted key begins its tables too.
        for size in range(1, len(path) + 1):
            found.setdefault(path[:size], number)
    return found


def _path(text: str) -> tuple[str, ...]:
    """Return the parts of a dotted key without their quotes; empty if the line is none of TOML."""
    try:
        value: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:  # a line inside a string of several lines
        return ()
    parts = []
    while isinstance(value, dict):
        ((part, value),) = value.items()
        parts.append(part)
    return tuple(parts)
