"""Publishes the stages of a lease: the wait for others, and the load of the model."""

import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from puna import events
from puna.runtime.requirements import Lease, Loading, Queued


class LeaseStages:
    """Notes from the progress of one lease when its stages begin, and publishes them once the lease is given."""

    def __init__(self, model: str) -> None:
        """`model` is the name of the model in the list of models."""
        self._model = model
        self._begun_ns = time.time_ns()
        self._waited = False
        self._load_ns = 0

    def on_progress(self, progress: Queued | Loading) -> None:
        """Note that the request waits behind others, or that its model is being loaded."""
        if isinstance(progress, Queued) and progress.position:
            self._waited = True
        elif not self._load_ns:
            # Position 0 is that of the request for which a model is loaded next. The first fraction comes later.
            self._load_ns = time.time_ns()

    def observing(self, lease: AbstractAsyncContextManager[Lease]) -> AbstractAsyncContextManager[Lease]:
        """Return a context manager that holds the lease and publishes the stages once it is given."""
        return _ObservedLease(self, lease)

    def on_failure(self, failure: BaseException) -> None:
        """Publish the stages of a lease that is not given."""
        self._publish(events.reason_of(failure))

    def on_lease(self, given: Lease) -> None:
        """Publish the stages of a lease that is given, and the event about it."""
        self._publish("")
        events.publish(events.ModelLeased(self._model, given.backend))

    def _publish(self, error: str) -> None:
        now = time.time_ns()
        if self._waited:
            events.publish_stage("queue", self._begun_ns, self._load_ns or now, "" if self._load_ns else error)
        if self._load_ns:
            events.publish_stage("load", self._load_ns, now, error)


class _ObservedLease(AbstractAsyncContextManager[Lease]):
    """A lease and its stages. A class costs a request less than a generator with an exit stack."""

    def __init__(self, stages: LeaseStages, lease: AbstractAsyncContextManager[Lease]) -> None:
        self._stages = stages
        self._lease = lease

    async def __aenter__(self) -> Lease:
        try:
            given = await self._lease.__aenter__()
        except BaseException as failure:
            self._stages.on_failure(failure)
            raise
        self._stages.on_lease(given)
        return given

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._lease.__aexit__(kind, error, traceback)
