"""The models that backends offer without a creation, as models like those of the store.

Such a model has the name of its backend in front of its name at the upstream, for example
"openai/gpu1/Qwen/Qwen3-8B:latest". It has no manifest and no files: its backend and its name at the upstream are all of
it. A model of the store with the same name comes first.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from puna.model_name import ModelName
from puna.models.facts.details import ModelSummary
from puna.models.layout.config import Config
from puna.models.store import ModelStore
from puna.models.stored import StoredModel
from puna.runtime.upstream_models import Offer, UpstreamModels


@dataclass(frozen=True, slots=True)
class OfferedName(ModelName):
    """The name of an offered model. It may have any number of parts, so its text is kept."""

    text: str = ""

    @property
    def full(self) -> str:
        """The name."""
        return self.text

    @property
    def shortest(self) -> str:
        """The name."""
        return self.text


class OfferedModels:
    """Lists and finds the models that backends offer."""

    def __init__(self, store: ModelStore, upstream_models: UpstreamModels) -> None:
        self._store = store
        self._upstream_models = upstream_models
        self._began_ns = time.time_ns()
        self._listed: dict[Offer, StoredModel] = {}
        """The models of the last list. Clients ask for lists every few seconds."""

    async def list(self, sees: Callable[[str], bool]) -> list[ModelSummary]:
        """Return all models of which `sees` approves the name."""
        offers = await self._upstream_models.all()
        # Those that are no longer offered are forgotten, so that an upstream cannot fill the memory.
        self._listed = {offer: self._listed.get(offer) or self._model(offer) for offer in offers}
        return [replace(model.summary, is_offered=True) for offer, model in self._listed.items() if sees(offer.name)]

    async def find(self, name: str) -> StoredModel | None:
        """Return a model by the name that a client wrote; None if no backend offers it."""
        offer = await self._upstream_models.find(name)
        return self._model(offer) if offer is not None else None

    def owns(self, name: str) -> bool:
        """Return whether a name is that of an offered model, if there is such a model."""
        return self._upstream_models.owns(name)

    def _model(self, offer: Offer) -> StoredModel:
        path, _, tag = offer.name.rpartition(":")
        namespace, _, model = path.rpartition("/")
        config = Config(
            backend=offer.backend,
            upstream=offer.model.name,
            capabilities=offer.model.capabilities,
            context_length=offer.model.context_length,
        )
        return self._store.without_manifest(
            OfferedName("", namespace, model, tag, text=offer.name),
            config,
            digest=hashlib.sha256(offer.name.encode()).hexdigest(),
            # An upstream does not say when a model changed.
            modified_ns=self._began_ns,
        )
