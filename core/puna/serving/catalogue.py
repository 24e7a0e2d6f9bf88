"""The models of the store, for clients: lists, describes, copies, deletes, creates, pulls and pushes them.

Names are taken as clients write them, and errors have the words that Ollama has for each operation. Everything that
blocks runs in threads.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeAlias

from puna.auth.caller import current
from puna.blocking import iterate, iterate_from_loop
from puna.errors import (
    CloudDisabledError,
    InvalidCreateError,
    InvalidModelNameError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelRequiredError,
)
from puna.go.json import quote
from puna.model_name import ModelName, Source, parse_reference, stub_name
from puna.models.create import rewrite
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.facts.details import Details, ModelSummary
from puna.models.progress import TransferStep
from puna.models.registry.registries import Registries
from puna.models.show import ShowResult, show
from puna.models.store import ModelStore
from puna.models.stored import FAULTS, StoredModel
from puna.sandbox.sandbox import Sandbox
from puna.serving.aliases import resolved
from puna.serving.offered_models import OfferedModels
from puna.settings import Settings

Step: TypeAlias = TransferStep
Event: TypeAlias = TransferStep | ModelSummary
"""A step of a job, or the model with which it ends."""


class Catalogue:
    """Lists, describes and changes the models of a store."""

    def __init__(
        self,
        store: ModelStore,
        registries: Registries | None = None,
        sandbox: Sandbox | None = None,
        find_quantizer: Callable[[], str] = lambda: "",
        offered_models: OfferedModels | None = None,
        settings: Settings | None = None,
    ) -> None:
        """`registries` pulls and pushes; None means registries without credentials. `sandbox` reads templates before
        they are stored.

        `find_quantizer` returns the module of the quantizer to run, empty if there is none. It may block.

        `offered_models` are listed behind those of the store; None: there are none. `settings` have the aliases of
        models; None: there are none.
        """
        self._settings = settings or Settings()
        self._offered_models = offered_models
        self._find_quantizer = find_quantizer
        self._sandbox = sandbox
        self._store = store
        self._registries = registries or Registries(store)

    async def list(self) -> list[ModelSummary]:
        """Return all models of the store, newest first, and then those that backends offer, by name.

        Raises OSError if the store cannot be read.
        """
        sees = current().sees

        def read() -> list[ModelSummary]:
            found = self._store.list()
            # A folder that cannot be read lists no models either, and must not pass for an empty store.
            if not found:
                self._store.check()
            return [each for each in found if sees(each.name.shortest)]

        stored = await asyncio.to_thread(read)
        if self._offered_models is None:
            return stored
        taken = {each.name.shortest for each in stored}
        offered = await self._offered_models.list(sees)
        fresh = [each for each in offered if each.name.shortest not in taken]
        return stored + sorted(fresh, key=lambda each: each.order)

    async def show(
        self, name: str, *, verbose: bool = False, system: str = "", options: Mapping[str, Any] | None = None
    ) -> ShowResult:
        """Describe a model.

        Raises ModelRequiredError, InvalidModelNameError, CloudDisabledError, ModelNotFoundError.
        """
        reference = parse_reference(name)
        reference, alias = await resolved(reference, self._settings.model_settings, self._store)
        if reference.name.is_valid:
            current().check_model(reference.name.shortest, alias)
            if reference.source is Source.CLOUD:
                raise CloudDisabledError("remote model details are unavailable")

        def stored() -> StoredModel | None:
            try:
                return self._store.get(reference.name)
            except LookupError:
                self._store.check()
                return None

        model = await asyncio.to_thread(stored) if reference.name.is_valid else None
        if model is None and self._offered_models is not None:
            model = await self._offered_models.find(reference.base)
        if model is None:
            if not reference.name.is_valid:
                owned = self._offered_models is not None and self._offered_models.owns(reference.base)
                raise ModelNotFoundError(reference.base) if owned else InvalidModelNameError
            raise ModelNotFoundError(alias or reference.name.shortest)
        current().check_model(model.name.shortest, alias)
        shown = await asyncio.to_thread(show, model, verbose=verbose, system=system, options=options)
        configured = self._settings.model_settings
        own, sets = configured.of(model.name.shortest), configured.sets_of(model.name.shortest)
        return replace(shown, settings=own, sets=sets) if own.name or sets else shown

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name. Raises InvalidModelNameError, ModelNotFoundError."""
        names = ModelName.parse(source), ModelName.parse(destination)
        # The source is checked first, since Ollama names the first invalid one.
        for what, text, name in zip(("source", "destination"), (source, destination), names, strict=True):
            if not name.is_valid:
                raise InvalidModelNameError(f"{what} {quote(text)} is invalid", field=what)
            current().check_model(name.shortest)
        try:
            await asyncio.to_thread(self._store.copy, *names)
        except LookupError:
            await asyncio.to_thread(self._store.check)
            raise ModelNotFoundError(source, f"model {quote(source)} not found") from None

    async def delete(self, name: str) -> None:
        """Remove a model's name. Raises ModelRequiredError, InvalidModelNameError, ModelNotFoundError."""
        # A cloud model is stored as a stub under a name of its own, which is the one to delete.
        target = stub_name(parse_reference(name))
        if not target.is_valid:
            raise InvalidModelNameError(f"name {quote(name)} is invalid")
        current().check_model(target.shortest)
        try:
            await asyncio.to_thread(self._store.delete, target)
        except LookupError:
            await asyncio.to_thread(self._store.check)
            raise ModelNotFoundError(name) from None

    async def summary(self, name: ModelName) -> ModelSummary:
        """Describe a model of the store as a list does. A model that cannot be read has its name alone.

        A job ends with this description, and must not fail because another client removed its model in between.
        """

        def read() -> ModelSummary:
            try:
                return self._store.get(name).summary
            except FAULTS:
                return ModelSummary(name=name, digest="", size=0, modified_ns=0, details=Details(), capabilities=())

        return await asyncio.to_thread(read)

    async def create(self, request: CreateRequest) -> AsyncGenerator[Event]:
        """Create a model, yield each step and then the model; a base model that is missing is pulled.

        Closing the generator stops the work and waits for it. Raises what puna.models.create.create raises.
        """

        for name in filter(None, (request.name, request.base)):
            current().check_model(ModelName.parse(name).shortest)
        request = await self._from_offered(request)
        loop = asyncio.get_running_loop()

        def steps(stopped: Callable[[], bool]) -> Iterator[Step]:
            def pull(name: ModelName) -> Iterator[Step]:
                # Creating runs in a thread, but the registry client belongs to the event loop. The base model is
                # therefore pulled in the loop and its steps are carried over to the thread.
                return iterate_from_loop(self._registries.pull(name, insecure=False), loop, stopped)

            module = self._find_quantizer()
            rewriter = rewrite.with_program(module) if module else None
            return create(self._store, request, rewriter=rewriter, pull=pull, stopped=stopped)

        if self._sandbox is not None and request.template:
            # Without this, the creation would block its thread until a worker answers.
            await self._sandbox.prefetch_facts(request.template)
        async with aclosing(iterate(steps)) as made:
            async for step in made:
                yield step
        yield await self.summary(ModelName.parse(request.name))

    async def _from_offered(self, request: CreateRequest) -> CreateRequest:
        """Return a request whose base is a model that a backend offers with that backend and its upstream in place.

        Raises InvalidCreateError if the request names another backend.
        """
        if not request.base or request.remote_host or self._offered_models is None:
            return request
        # A model of the store comes first, as in every other request.
        name = ModelName.parse(request.base)
        if name.is_valid and await asyncio.to_thread(self._store.has, name):
            return request
        offered = await self._offered_models.find(request.base)
        if offered is None:
            return request
        config = offered.config
        if request.backend not in ("", config.backend):
            raise InvalidCreateError(f"{request.base} is a model of backend {config.backend!r}")
        info = {"capabilities": list(config.capabilities)} | dict(request.info)
        upstream = request.upstream or config.upstream
        return replace(request, base="", files=None, backend=config.backend, upstream=upstream, info=info)

    async def pull(self, name: str, *, insecure: bool) -> AsyncGenerator[Event]:
        """Pull a model from a registry, yield each step and then the model.

        Raises InvalidModelNameError, TransferError.
        """
        try:
            reference = parse_reference(name)
        # Ollama has one text for every bad name to pull, the empty one included.
        except ModelRequiredError:
            raise InvalidModelNameError from None
        except InvalidRequestError as error:
            raise InvalidModelNameError(str(error)) from error
        target = stub_name(reference)
        offered = self._offered_models
        # With so many parts, the name of a backend would be that of a registry.
        if offered is not None and reference.base.count("/") > 1 and offered.owns(reference.base):
            raise ModelNotFoundError(reference.base)
        if not target.is_valid:
            raise InvalidModelNameError
        current().check_model(target.shortest)
        # Names are case-insensitive. A model that exists is updated under the spelling that it has.
        target = await asyncio.to_thread(self._store.resolve, target)
        async with aclosing(self._registries.pull(target, insecure=insecure)) as steps:
            async for step in steps:
                yield step
        yield await self.summary(target)

    async def push(self, name: str, *, insecure: bool) -> AsyncGenerator[Event]:
        """Push a model to a registry, yield each step and then the model. Raises ModelRequiredError, TransferError."""
        if not name:
            raise ModelRequiredError
        target = ModelName.parse(name)
        current().check_model(target.shortest)
        async with aclosing(self._registries.push(target, insecure=insecure)) as steps:
            async for step in steps:
                yield step
        yield await self.summary(target)
