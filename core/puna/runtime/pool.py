"""The model pool: leases loaded models to requests, and has others loaded.

Theory. A request asks for a lease and waits for at most two things: for its model to be loaded (the scheduler's queue,
see `scheduling`), and then for a slot of the model to run its sequence (the model's ConcurrencyLimiter, see
`admission`). A model that is loaded and meets the requirements is leased at once. The number of requests that wait for
anything is bounded by OLLAMA_MAX_QUEUE; the check happens when a lease is asked for, before any work is done.

A lease keeps the model from being freed. When it ends, the expiry timer starts (`keep_alive`). A model may still go
while it is leased, if its host dies. A sequence or call that has yielded nothing then runs once more on another replica
or on the model as it is loaded again, which the lease holds from then on. Any other one raises BackendCrashedError.
"""

import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from puna.backend import UpstreamModel
from puna.errors import BackendCrashedError, QueueFullError
from puna.plugins import Registry
from puna.runtime import sockets
from puna.runtime.estimates import MemoryEstimator, ModelEstimate
from puna.runtime.keep_alive import PooledModel
from puna.runtime.launch import LoadInHost, ModelLauncher
from puna.runtime.launcher import Launcher, NodeStatus
from puna.runtime.listing_hosts import ListingHosts
from puna.runtime.loaded_models import LoadedModels
from puna.runtime.loader import Loader
from puna.runtime.local_launcher import LocalLauncher
from puna.runtime.requirements import Lease, LeaseKind, LoadedEntry, Loading, ModelRequirements, OnProgress, Queued
from puna.runtime.scheduling import Scheduler
from puna.runtime.upstream_models import UpstreamModels
from puna.settings import Settings

log = logging.getLogger(__name__)


class ModelPool:
    """Loads each model once and leases it to requests. Leaving its context ends every host."""

    def __init__(
        self,
        backends: Registry,
        settings: Settings,
        *,
        socket_dir: Path | None = None,
        load: LoadInHost | None = None,
    ) -> None:
        """`socket_dir` is where the folder of sockets is made; None means the user's runtime folder.

        `load` loads a model in a host; only tests replace it.
        """
        self._load = load
        self._backends = backends
        self._settings = settings
        self._socket_dir = socket_dir
        self._models = LoadedModels()
        self._exits = ExitStack()

    async def __aenter__(self) -> Self:
        addresses = self._exits.enter_context(sockets.folder(self._socket_dir))
        self._hosts = self._launcher_of_hosts(addresses)
        self._launcher = ModelLauncher(self._backends, self._settings, addresses, self._hosts, self._load)
        self._listing_hosts = ListingHosts(self._launcher.connect)
        limits = self._settings.limits
        self.upstream_models = UpstreamModels(
            self._launcher.listing_backends,
            self._ask,
            wait_seconds=limits.max_listing_seconds,
            most=limits.max_upstream_models,
            find_backends=self._backends.refresh,
        )
        self.upstream_models.prefetch()
        self._loader = Loader(self._models, self._launcher, self._settings)
        self._estimator = MemoryEstimator(self._launcher, self._loader, self._settings)
        stall_seconds = self._settings.limits.max_silent_load_seconds
        self._scheduler: Scheduler[PooledModel] = Scheduler(self._loader, stall_seconds)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The scheduler first: a load that ended after the models were removed would leave a host behind.
        await self._scheduler.close()
        await self.upstream_models.aclose()
        await self._listing_hosts.aclose()
        await self._models.close()
        await self._hosts.aclose()
        self._exits.close()

    def _launcher_of_hosts(self, addresses: sockets.Sockets) -> Launcher:
        """Return the launcher that the settings name. Raises OSError if a certificate or an address is not valid."""
        if self._settings.launcher == "local":
            return LocalLauncher(addresses.next)
        # Imported here, so that a server without nodes does not pay for it.
        if self._settings.launcher == "ray":
            from puna.runtime.ray_launcher import ray_launcher

            return ray_launcher(self._settings, addresses.next)
        from puna.runtime.static_launcher import static_launcher

        return static_launcher(self._settings, addresses.next)

    async def _ask(self, backend: str) -> list[UpstreamModel]:
        """Ask a backend for the models that it offers."""
        plugin, options = await self._launcher.listing_options(backend)
        return await self._listing_hosts.models(plugin, options)

    @asynccontextmanager
    async def lease(
        self,
        requirements: ModelRequirements,
        *,
        keep_alive: float | None = None,
        priority: int = 0,
        on_progress: OnProgress = lambda _: None,
        kind: LeaseKind = LeaseKind.SEQUENCE,
    ) -> AsyncGenerator[Lease]:
        """Lease a model for as long as the block lasts, loading it first if needed.

        `keep_alive` is how many seconds the model stays afterwards, from now on for every request; infinity means for
        good, None leaves it unchanged. `on_progress` is called while the request waits and the model loads. Cancelling
        the task while it waits ends the load, unless another request waits for the same model.

        Raises QueueFullError if too many requests wait, BackendNotFoundError or LoadFailedError if the model cannot be
        loaded, and InvalidRequestError if the request sets an option of the backend that it may not set.
        """
        began = time.perf_counter_ns()
        position = 0

        def report(progress: Queued | Loading) -> None:
            nonlocal position
            if isinstance(progress, Queued):
                position = progress.position
            on_progress(progress)

        # Before any queue, so that a refused request waits for nothing and evicts nothing.
        requirements = await self._launcher.checked(requirements)
        pooled = self._loader.usable(requirements)
        if pooled is None:
            # A load that has nothing to wait for is never refused, however many requests wait for slots elsewhere.
            if self._scheduler.waiting and self._is_full(requirements, kind, None):
                raise QueueFullError
            pooled = await self._scheduler.wait(requirements, kind, priority, report)
        else:
            if pooled.is_full(kind) and self._is_full(requirements, kind, pooled):
                raise QueueFullError
            # No `await` lies between `usable` and this, so the model cannot be evicted in between.
            pooled.acquire(kind)
        held: list[PooledModel] = []

        def hold(pooled: PooledModel) -> PooledModel:
            held.append(pooled)
            # The file may have settings for each of the names under which it is loaded.
            pooled.names.add(requirements.name)
            return pooled

        def keep(pooled: PooledModel) -> PooledModel:
            # The new keep-alive also holds for the other requests that use the model.
            if keep_alive is not None:
                pooled.keep_alive, pooled.unloading = keep_alive, False
            return pooled

        async def renew(error: BackendCrashedError) -> PooledModel:
            """Load the model again, or take it as another request has loaded it meanwhile."""
            if self._scheduler.closed:
                raise error
            # One line for each request that waited would be too many. The death itself is in the log.
            log.debug("%s: its host has died, and a request begins anew", requirements.name)
            if (pooled := self._loader.usable(requirements)) is None:
                return keep(hold(await self._scheduler.wait(requirements, kind, priority, report)))
            pooled.acquire(kind)
            return hold(pooled)

        try:
            keep(hold(pooled))
            # Only a sequence may have to wait again. See AdmittedModel for its position.
            if kind is not LeaseKind.SEQUENCE and position:
                report(Queued(0))
            yield Lease(
                model=pooled.admit(lambda position: on_progress(Queued(position)), position, renew),
                key=requirements.key,
                backend=pooled.backend,
                facts=pooled.model.facts,
                load_ns=time.perf_counter_ns() - began,
            )
        finally:
            for each in held:
                self._loader.release(each, kind)

    async def estimate(self, requirements: ModelRequirements) -> ModelEstimate:
        """Estimate the memory of a model, without loading it. Raises what `MemoryEstimator.estimate` raises."""
        return await self._estimator.estimate(requirements)

    async def unload(self, key: str) -> bool:
        """Free a model as soon as it is idle; return whether it was loaded. Waits for nothing."""
        pooled = self._models.get(key)
        if pooled is None:
            return False
        # Requests that run keep the model. It goes when the last of them ends.
        pooled.keep_alive, pooled.unloading = 0.0, True
        self._models.expire_when_idle(pooled)
        return True

    def pin(self, key: str, pinned: bool) -> bool | None:
        """Pin a loaded model, or end such a pin; return whether it is pinned now. None: it is not loaded."""
        pooled = self._models.get(key)
        # A model that ends is not kept by a pin; a request that follows would load it again.
        if pooled is None or pooled.evicting or pooled.unloading:
            return None
        pooled.pinned_by_request = pinned
        self._models.adopt_settings()
        return pooled.pinned

    def adopt_settings(self) -> None:
        """Take notice of a reload: models may be pinned now that were not, and others no longer."""
        self._models.adopt_settings()
        self._loader.adopt_settings()

    def accepts(self, key: str) -> bool:
        """Return whether a model is loaded and takes further requests."""
        pooled = self._models.get(key)
        return pooled is not None and not pooled.evicting

    def loaded(self) -> list[LoadedEntry]:
        """Return the loaded models. The model that expires last comes first."""
        return self._models.entries()

    def nodes(self) -> Sequence[NodeStatus]:
        """Return the machines other than this one on which hosts may run."""
        return self._hosts.nodes()

    def waiting(self) -> int:
        """Return how many requests wait for a model to be loaded."""
        return self._scheduler.waiting

    def _is_full(self, requirements: ModelRequirements, kind: LeaseKind, pooled: PooledModel | None) -> bool:
        """Return whether one more request would be too many, of all that wait or of those for its model.

        `pooled` is the model if it is loaded.
        """
        if self._queued() >= self._settings.max_queue:
            return True
        most = self._settings.model_settings.of(requirements.name).max_queue
        if most is None or kind is LeaseKind.BACKGROUND:
            return False
        if pooled is not None:
            return pooled.waiting >= most
        waiting = self._scheduler.waiting_for(requirements.key)
        return sum(each.kind is not LeaseKind.BACKGROUND for each in waiting) >= most

    def _queued(self) -> int:
        """Return how many requests wait for anything. The one whose model is being loaded counts as served."""
        return max(self._scheduler.waiting - 1, 0) + self._models.waiting
