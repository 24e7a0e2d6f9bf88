"""The store for clients: names as they write them, errors in each operation's own words, nothing blocks the loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

from puna.blocking import iterate, iterate_from_loop
from puna.errors import (
    CloudDisabledError,
    InvalidModelNameError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelRequiredError,
)
from puna.go.json import quote
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.facts.details import ModelSummary
from puna.models.name import ModelName, Source, parse_reference, stub_name
from puna.models.progress import TransferStep
from puna.models.registry.registries import Registries
from puna.models.show import ShowResult, show
from puna.models.store import ModelStore
from puna.sandbox.sandbox import Sandbox

Step: TypeAlias = TransferStep


class Catalogue:
    """Lists, describes and changes the models of a store."""

    def __init__(self, store: ModelStore, registries: Registries | None = None, sandbox: Sandbox | None = None) -> None:
        """`registries` bring and take models; None: without credentials. `sandbox` reads templates beforehand."""
        self._sandbox = sandbox
        self._store = store
        self._registries = registries or Registries(store)

    async def list(self) -> list[ModelSummary]:
        """Return all models, newest first. OSError: the store is gone."""

        def read() -> list[ModelSummary]:
            found = self._store.list()
            if not found:
                self._store.check()
            return found

        return await asyncio.to_thread(read)

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
                self._store.check()
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
            await asyncio.to_thread(self._store.check)
            raise ModelNotFoundError(source, f"model {quote(source)} not found") from None

    async def delete(self, name: str) -> None:
        """Remove a name. ModelRequiredError, InvalidModelNameError, ModelNotFoundError."""
        target = stub_name(parse_reference(name))
        if not target.is_valid:
            raise InvalidModelNameError(f"name {quote(name)} is invalid")
        try:
            await asyncio.to_thread(self._store.delete, target)
        except LookupError:
            await asyncio.to_thread(self._store.check)
            raise ModelNotFoundError(name) from None

    async def create(self, request: CreateRequest) -> AsyncGenerator[Step]:
        """Make a model, step by step; a base that is not here is pulled. Closing it stops the work and waits for it.

        Errors: see puna.models.create.create.
        """

        loop = asyncio.get_running_loop()

        def steps(stopped: Callable[[], bool]) -> Iterator[Step]:
            def pull(name: ModelName) -> Iterator[Step]:
                return iterate_from_loop(self._registries.pull(name, insecure=False), loop, stopped)

            return create(self._store, request, pull=pull, stopped=stopped)

        if self._sandbox is not None and request.template:
            await self._sandbox.prefetch_facts(request.template)  # threads are few, and a worker may take its time
        async with aclosing(iterate(steps)) as made:
            async for step in made:
                yield step

    async def pull(self, name: str, *, insecure: bool) -> AsyncGenerator[Step]:
        """Fetch a model from a registry: see puna.models.registry. InvalidModelNameError, TransferError."""
        try:
            reference = parse_reference(name)
        except ModelRequiredError:
            raise InvalidModelNameError from None
        except InvalidRequestError as error:
            raise InvalidModelNameError(str(error)) from error
        target = stub_name(reference)
        if not target.is_valid:
            raise InvalidModelNameError
        target = await asyncio.to_thread(self._store.resolve, target)
        async with aclosing(self._registries.pull(target, insecure=insecure)) as steps:
            async for step in steps:
                yield step

    async def push(self, name: str, *, insecure: bool) -> AsyncGenerator[Step]:
        """Send a model to a registry: see puna.models.registry. ModelRequiredError, TransferError."""
        if not name:
            raise ModelRequiredError
        async with aclosing(self._registries.push(ModelName.parse(name), insecure=insecure)) as steps:
            async for step in steps:
                yield step
