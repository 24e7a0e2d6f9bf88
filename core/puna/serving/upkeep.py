"""Imports models from files on the server's disk, and checks and repairs the store. The work runs in threads."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from puna.blocking import iterate
from puna.errors import InvalidCreateError, InvalidModelNameError, PunaError
from puna.model_name import ModelName
from puna.models.create.backend_choice import GGUF, format_to_import
from puna.models.progress import TransferStep
from puna.models.storage.integrity import StoppedError
from puna.models.storage.linked import InPlace
from puna.models.store import ModelStore
from puna.models.upkeep import doctor, in_place
from puna.models.upkeep.in_place import Link
from puna.models.upkeep.report import Finding, Report
from puna.models.upkeep.scan import Found, Skipped, find, find_opaque


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """The files to import, and how."""

    paths: Sequence[str]
    """Absolute paths of files and folders."""
    name: str = ""
    """Name of the model if there is only one; empty: names are derived from the files' names."""
    link: Link = Link.AUTOMATIC
    replace: bool = False
    dry_run: bool = False
    backend: str = ""
    format: str = ""
    """The format of the files; empty: GGUF, or the only other one that the backend serves."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The models that an import makes, and the files that it skips.

    The names in `found` are free, or belong to models that will be replaced.
    """

    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that was imported, and its files that stay where they are."""

    name: ModelName
    in_place: tuple[InPlace, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A model that could not be imported."""

    name: str
    file: Skipped


ImportEvent: TypeAlias = Plan | TransferStep | Imported | Failed


async def import_models(store: ModelStore, request: ImportRequest) -> AsyncGenerator[ImportEvent]:
    """Import models: yield the plan, then for each model its steps and its result. A failure stops no other model.

    Raises InvalidCreateError for a path that is relative or missing, or one name for several models, and
    InvalidModelNameError. Closing the generator stops the work and waits for it.
    """
    async with aclosing(iterate(lambda stopped: _import(store, request, stopped))) as events:
        async for each in events:
            yield each


def _import(store: ModelStore, request: ImportRequest, stopped: Callable[[], bool]) -> Iterator[ImportEvent]:
    # A misspelt backend is refused before anything is read.
    format_ = format_to_import(request.backend, request.format, store.backends)
    plan = _plan(store, request, format_, stopped)
    # GGUF files need no backend, and are recognised again when each model is created.
    format_ = "" if format_ == GGUF else format_
    yield plan
    if request.dry_run or stopped():
        return
    for found in plan.found:
        name = ModelName.parse(found.name)
        try:
            yield from in_place.register(
                store, found, name, link=request.link, backend=request.backend, format=format_, stopped=stopped
            )
            made = store.get(name)
        # The client has left, so nothing waits for a result.
        except StoppedError:
            return
        # LookupError: another client may have deleted the model between the two calls.
        except (PunaError, OSError, LookupError) as error:
            yield Failed(found.name, Skipped(found.files[0], str(error)))
        else:
            yield Imported(name, made.in_place)


def _plan(store: ModelStore, request: ImportRequest, format_: str, stopped: Callable[[], bool]) -> Plan:
    if not request.paths:
        raise InvalidCreateError("no path is given")
    paths = map(Path, request.paths)
    found, skipped = find(paths, stopped) if format_ == GGUF else find_opaque(paths)
    if request.name:
        if not ModelName.parse(request.name).is_valid:
            raise InvalidModelNameError
        if len(found) > 1:
            raise InvalidCreateError(f"one name cannot be given to {len(found)} models")
        found = [replace(each, name=ModelName.parse(request.name).shortest) for each in found]
    # Names that differ in case alone would share a file where the file system ignores case.
    there = {name.folded for name in store.names()}
    new = []
    for each in found:
        if ModelName.parse(each.name).folded in there and not request.replace:
            skipped.append(Skipped(each.files[0], f"there is a model {each.name} already"))
        else:
            new.append(each)
    return Plan(tuple(new), tuple(skipped))


async def check_store(
    store: ModelStore, *, repair: bool, quick: bool
) -> AsyncGenerator[TransferStep | Finding | Report]:
    """Check the whole store: see puna.models.upkeep.doctor. Closing the generator stops the check and waits for it."""

    def examine(stopped: Callable[[], bool]) -> Iterator[TransferStep | Finding | Report]:
        try:
            yield from doctor.examine(store, repair=repair, quick=quick, stopped=stopped)
        except StoppedError:
            return

    async with aclosing(iterate(examine)) as steps:
        async for each in steps:
            yield each
