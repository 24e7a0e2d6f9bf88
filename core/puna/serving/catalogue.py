"""The store for clients: names as they write them, errors in each operation's own words, nothing blocks the loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

from puna.blocking import iterate
from puna.errors import (
    CloudDisabledError,
    InvalidModelNameError,
    ModelNotFoundError,
    ModelRequiredError,
    TransferError,
)
from puna.gojson import quote
from puna.models.create import create
from puna.models.create_request import CreateRequest, TransferStep
from puna.models.details import ModelSummary
from puna.models.name import ModelName, Source, parse_reference, stub_name
from puna.models.show import ShowResult, show
from puna.models.store import ModelStore

Step: TypeAlias = TransferStep


class Catalogue:
    """Lists, describes and changes the models of a store."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    async def list(self) -> list[ModelSummary]:
        """Return all models, newest first."""
        return await asyncio.to_thread(self._store.list)

    async def show(
        self, name: str, *, verbose: bool = False, system: str = "", options: Mapping[str, Any] | None = None
    ) -> ShowResult:
        """Describe a model. ModelRequiredError, InvalidModelNameError, CloudDisabledError, ModelNotFoundError."""
        reference = parse_reference(name)
        if not reference.name.is_valid:
            raise InvalidModelNameError
        if reference.source is Source.CLOUD:
            raise CloudDisabledError("remote model details are unavailable")

        def read() -> ShowResult:
            try:
                model = self._store.get(reference.name)
            except LookupError:
                raise ModelNotFoundError(reference.name.shortest) from None
            return show(model, verbose=verbose, system=system, options=options)

        return await asyncio.to_thread(read)

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name. InvalidModelNameError, ModelNotFoundError."""
        names = ModelName.parse(source), ModelName.parse(destination)
        for what, text, name in zip(("source", "destination"), (source, destination), names, strict=True):
            if not name.is_valid:
                raise InvalidModelNameError(f"{what} {quote(text)} is invalid")
        try:
            await asyncio.to_thread(self._store.copy, *names)
        except LookupError:
            raise ModelNotFoundError(source, f"model {quote(source)} not found") from None

    async def delete(self, name: str) -> None:
        """Remove a name. ModelRequiredError, InvalidModelNameError, ModelNotFoundError."""
        target = stub_name(parse_reference(name))
        if not target.is_valid:
            raise InvalidModelNameError(f"name {quote(name)} is invalid")
        try:
            await asyncio.to_thread(self._store.delete, target)
        except LookupError:
            raise ModelNotFoundError(name) from None

    async def create(self, request: CreateRequest) -> AsyncGenerator[Step]:
        """Make a model, step by step. Closing it stops the work and waits for it; nothing appears then.

        Errors: see puna.models.create.
        """

        def steps(stopped: Callable[[], bool]) -> Iterator[Step]:
            return create(self._store, request, stopped=stopped)

        async with aclosing(iterate(steps)) as made:
            async for step in made:
                yield step

    async def pull(self, name: str, *, insecure: bool) -> AsyncGenerator[Step]:
        """Fail as far as names can: registries cannot be reached yet. InvalidModelNameError, TransferError."""
        try:
            reference = parse_reference(name)
        except ModelRequiredError:
            raise InvalidModelNameError from None
        target = stub_name(reference)
        if not target.is_valid:
            raise InvalidModelNameError
        yield Step("pulling manifest")
        url = f"{_registry(target, insecure=insecure)}/manifests/{target.tag}"
        raise TransferError(f"pull model manifest: Get {quote(url)}: this server cannot pull yet")

    async def push(self, name: str, *, insecure: bool) -> AsyncGenerator[Step]:
        """Fail as far as names and the store can: no registry is asked yet. ModelRequiredError, TransferError."""
        if not name:
            raise ModelRequiredError
        target = ModelName.parse(name)
        yield Step("retrieving manifest")
        if not target.is_valid:
            raise TransferError(f"unqualified name: {target.full}")
        manifest = await asyncio.to_thread(lambda: self._store.read_manifest(self._store.resolve(target)))
        if manifest is None:
            yield Step("couldn't retrieve manifest")
            path = self._store.root.joinpath("manifests", *target.parts)
            raise TransferError(f"open {path}: no such file or directory")
        digest = (*manifest.layers, manifest.config)[0].digest
        url = f"{_registry(target, insecure=insecure)}/blobs/{digest}"
        raise TransferError(f"Head {quote(url)}: this server cannot push yet")


def _registry(name: ModelName, *, insecure: bool) -> str:
    scheme = "http" if insecure else name.scheme
    return f"{scheme}://{name.host}/v2/{name.namespace}/{name.model}"
