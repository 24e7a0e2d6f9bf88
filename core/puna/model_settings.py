"""The settings of single models: the tables [model.NAME] and [model_sets] of the configuration file.

    [model."qwen3:8b"]
    aliases = ["gpt-4o"]
    keep_alive = "1h"
    num_parallel = 4
    options = { temperature = 0.2, num_ctx = 16384 }

    [model_sets]
    large = ["qwen3:8b", "llama3.3:70b"]

A key that the server has too, such as keep_alive, means the same here for one model. Names are compared as in requests:
without regard to case, and with the default parts in place. `ConfiguredModels` answers all questions about them, so
that every face and every layer has the same rules. It never changes; a reload replaces it.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Final, TypeAlias

from puna.errors import PunaError
from puna.go.duration import parse_seconds
from puna.limits import LARGEST_INT32, Limits
from puna.model_name import ModelName, Source, parse_reference
from puna.options import KINDS, merge
from puna.replica_count import ROUTINGS, ReplicaCount

Wrong: TypeAlias = Callable[[tuple[str, ...], str], None]
"""Takes the place of a mistake in the file, as a path of keys, and the text that describes it."""
# The name of a model that a backend offers may have more parts than that of a model of the store.
_PARTS: Final = re.compile(r"[\w.:-]+(?:/[\w.:-]+)*", re.ASCII)
_DURATION: Final = 'it must be a duration, such as "5m" or a number of seconds'
MOST_GPUS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The settings of one model: a table [model.NAME]. Fields that are not set leave the server's settings in force."""

    name: str = ""
    """The name as the file has it; empty: the file does not name the model."""
    preload: bool = False
    """True: it is loaded when the server starts."""
    pin: bool = False
    """Whether it stays once it is loaded: neither its keep-alive nor another model's need for room ends it."""
    aliases: tuple[str, ...] = ()
    """Other names by which requests may call the model."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Default options: over those of the model, below those of a request."""
    backend: str = ""
    """The backend that runs it, whatever the model says."""
    keep_alive: float | None = None
    """Seconds that it stays loaded after its last request; infinity: for good."""
    load_timeout: float | None = None
    """Seconds without progress after which loading is given up; infinity: never."""
    num_parallel: int | None = None
    """Sequences that it runs at once."""
    max_queue: int | None = None
    """Requests that may wait for it. OLLAMA_MAX_QUEUE holds besides."""
    max_context_tokens: int | None = None
    """Longest context in tokens, whatever a request or the model asks for."""
    max_output_tokens: int | None = None
    """Longest answer in tokens, whatever a request or the model asks for."""
    replicas: ReplicaCount | None = None
    """How many hosts load it."""
    routing: str = ""
    """The policy that chooses the replica for a request."""
    gpus: float | None = None
    """GPUs that each of its hosts asks a cluster for; None: as many as have the memory that it needs."""


_UNSET: Final = ModelSettings()
SETTINGS: Final = tuple(each.name for each in fields(ModelSettings) if each.name != "name")
"""The keys of a table [model.NAME]."""


@dataclass(frozen=True)
class ConfiguredModels:
    """The settings of all models that the file names."""

    tables: tuple[ModelSettings, ...] = ()
    """In the order of the file."""
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of models by the name of their set. Of the models of a set, one is loaded at a time."""

    @cached_property
    def _by_name(self) -> dict[str, ModelSettings]:
        return {folded(each.name): each for each in self.tables}

    @cached_property
    def _by_alias(self) -> dict[str, ModelSettings]:
        return {folded(alias): each for each in self.tables for alias in each.aliases}

    @cached_property
    def _sets_by_name(self) -> dict[str, frozenset[str]]:
        members = {folded(name) for names in self.sets.values() for name in names}
        return {
            key: frozenset(each for each, names in self.sets.items() if key in map(folded, names)) for key in members
        }

    def of(self, name: str) -> ModelSettings:
        """Return the settings of a model. Those of a model that the file does not name are all unset."""
        # Most files name no model, and every request asks.
        return self._by_name.get(folded(name), _UNSET) if self.tables else _UNSET

    def pins(self, names: Iterable[str]) -> bool:
        """Return whether the file pins a loaded model, given the names under which requests have asked for it."""
        return bool(self.tables) and any(self.of(each).pin for each in names)

    def exclude(self, names: Iterable[str], others: Iterable[str]) -> bool:
        """Return whether two models may not be loaded at once, given the names of each."""
        return bool(self.sets) and not self._sets_of(names).isdisjoint(self._sets_of(others))

    def sets_of(self, name: str) -> list[str]:
        """Return the names of the sets that a model belongs to, in alphabetical order."""
        return sorted(self._sets_of([name]))

    def _sets_of(self, names: Iterable[str]) -> frozenset[str]:
        return frozenset().union(*(self._sets_by_name.get(folded(each), frozenset()) for each in names))

    def target(self, name: str) -> str:
        """Return the name of the model that has this alias; empty if the name is no alias."""
        found = self._by_alias.get(folded(name)) if self.tables else None
        return found.name if found is not None else ""


def folded(name: str) -> str:
    """Return a form of a model's name that is equal for equal models."""
    parsed = ModelName.parse(name)
    if parsed.is_valid:
        return parsed.shortest.lower()
    last = name.rpartition("/")[2]
    return (name if ":" in last else f"{name}:latest").lower()


def read_models(table: object, sets: object, wrong: Wrong) -> ConfiguredModels:
    """Read the file's tables `model` and `model_sets`. Each mistake is reported to `wrong`."""
    tables: list[ModelSettings] = []
    places: dict[str, tuple[str, ...]] = {}
    if not isinstance(table, dict):
        wrong(("model",), 'it must hold a table for each model: [model."NAME"]')
        return ConfiguredModels()
    for name, content in table.items():
        place = ("model", name)
        if why := _fault_of_name(name):
            wrong(place, why)
        elif not isinstance(content, dict):
            wrong(place, "it must be a table of the model's settings")
        elif (key := folded(name)) in places:
            wrong(place, f"it is the same model as {places[key][1]!r}")
        else:
            places[key] = place
            tables.append(_read_one(name, content, wrong))
    _check_aliases(tables, places, wrong)
    models = ConfiguredModels(tuple(tables))
    return replace(models, sets=_read_sets(sets, models, wrong))


def _read_sets(table: object, models: ConfiguredModels, wrong: Wrong) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    if not isinstance(table, dict):
        wrong(("model_sets",), 'it must hold lists of models: NAME = ["MODEL", "MODEL"]')
        return found
    for name, members in table.items():
        place = ("model_sets", name)
        if not isinstance(members, list) or not all(isinstance(each, str) for each in members):
            wrong(place, "it must be a list of names of models")
        elif bad := [each for each in members if _fault_of_name(each)]:
            wrong(place, f"{bad[0]!r}: {_fault_of_name(bad[0])}")
        else:
            found[name] = tuple(models.target(each) or each for each in members)
            _check_set(place, found[name], models, wrong)
    return found


def _check_set(place: tuple[str, ...], members: tuple[str, ...], models: ConfiguredModels, wrong: Wrong) -> None:
    """Report a set that contradicts itself or the settings of its models."""
    if len(set(map(folded, members))) < max(len(members), 2):
        wrong(place, "it must have two models or more, each of them once")
    if pinned := [each for each in members if models.of(each).pin]:
        wrong(place, f"{pinned[0]!r} is pinned, so that no other model of the set could ever be loaded")
    preloaded = [each for each in members if models.of(each).preload]
    if len(preloaded) > 1:
        wrong(place, f"{preloaded[0]!r} and {preloaded[1]!r} are both preloaded, but exclude each other")


def check_bounds(models: ConfiguredModels, limits: Limits) -> None:
    """Raise ValueError for a number of replicas above the limit, or an option with which all requests would fail."""
    for each in models.tables:
        try:
            (each.replicas or ReplicaCount()).check(limits.max_replicas)
        except ValueError as error:
            raise ValueError(f"model.{each.name}.replicas: {error}") from None
        for option, bound in (("num_thread", "max_threads"), ("num_batch", "max_batch_tokens")):
            value, most = each.options.get(option), getattr(limits, bound)
            if value is not None and value > most:
                raise ValueError(
                    f"model.{each.name}.options.{option}: it must be at most {most} (PUNA_{bound.upper()})"
                )


def _fault_of_name(name: str) -> str:
    """Return why a text cannot name a model; empty if it can."""
    if not ModelName.parse(name).is_valid and not (_PARTS.fullmatch(name) and "/" in name):
        return "it is no valid name of a model"
    if parse_reference(name).source is not Source.UNSPECIFIED:
        return "the name must not end in :local or :cloud"
    return ""


def _read_one(name: str, table: Mapping[str, Any], report: Wrong) -> ModelSettings:
    found: dict[str, Any] = {}

    def wrong(path: tuple[str, ...], what: str) -> None:
        report(("model", name, *path), what)

    for key, value in table.items():
        if key not in SETTINGS:
            near = difflib.get_close_matches(key, SETTINGS, 1)
            guess = f"perhaps {near[0]}" if near else f"there are {', '.join(SETTINGS)}"
            wrong((key,), f"there is no such setting of a model; {guess}")
            continue
        try:
            found[key] = _options(value, wrong) if key == "options" else _READERS[key](value)
        except ValueError as error:
            wrong((key,), str(error))
    settings = ModelSettings(name=name, **found)
    if settings.preload and settings.keep_alive == 0 and not settings.pin:
        wrong(("keep_alive",), "with 0 the model would be unloaded as soon as it is preloaded")
    return settings


def _options(value: object, wrong: Wrong) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it must be a table of options")
    for name, given in value.items():
        if name not in KINDS:
            near = difflib.get_close_matches(name, KINDS, 1)
            guess = f"perhaps {near[0]}" if near else f"there are {', '.join(sorted(KINDS))}"
            wrong(("options", name), f"there is no such option; {guess}")
            continue
        try:
            merge({name: given})
        except PunaError as error:
            wrong(("options", name), str(error))
        except OverflowError:
            wrong(("options", name), "the number is too large")
    return value


def _aliases(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("it must be a list of names")
    for each in value:
        if not ModelName.parse(each).is_valid or _fault_of_name(each):
            raise ValueError(f"{each!r} is no valid name of a model")
    return tuple(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it must be true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("it must be a text")
    return value


def _routing(value: object) -> str:
    if value not in ROUTINGS:
        raise ValueError(f"it must be {', '.join(ROUTINGS[:-1])} or {ROUTINGS[-1]}")
    return str(value)


def _gpus(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST_GPUS:
        number = float(value)
        if number <= 1 or number.is_integer():
            return number
    raise ValueError(f"it must be a number above 0 and up to 1, such as 0.25, or a whole number up to {MOST_GPUS}")


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(_DURATION)
    try:
        seconds = parse_seconds(str(value))
    except ValueError:
        raise ValueError(_DURATION) from None
    return math.inf if seconds < 0 else seconds


def _timeout(value: object) -> float:
    return _seconds(value) or math.inf


def _count(least: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if type(value) is not int or not least <= value <= LARGEST_INT32:
            raise ValueError(f"it must be a whole number from {least} to {LARGEST_INT32}")
        return value

    return read


_READERS: Final[Mapping[str, Callable[[object], Any]]] = {
    "preload": _flag,
    "pin": _flag,
    "aliases": _aliases,
    "backend": _text,
    "keep_alive": _seconds,
    "load_timeout": _timeout,
    "num_parallel": _count(1),
    "max_queue": _count(0),
    "max_context_tokens": _count(4),
    "max_output_tokens": _count(1),
    "replicas": ReplicaCount.parse,
    "routing": _routing,
    "gpus": _gpus,
}
"""Reads the value of each setting. Raises ValueError, whose text describes the values that are allowed."""


def _check_aliases(tables: list[ModelSettings], places: Mapping[str, tuple[str, ...]], wrong: Wrong) -> None:
    """Report aliases that are names of other tables, or that two models have."""
    owners: dict[str, str] = {}
    for each in tables:
        for alias in each.aliases:
            key, place = folded(alias), ("model", each.name, "aliases")
            if key in places:
                wrong(place, f"{alias!r} is the name of a model of this file")
            elif (owner := owners.setdefault(key, each.name)) != each.name:
                wrong(place, f"{alias!r} is an alias of {owner!r} too")
