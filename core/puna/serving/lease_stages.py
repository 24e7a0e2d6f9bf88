"""Publishes the stages of a lease: the wait for others, and the load of the model."""

import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

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

    @asynccontextmanager
    async def observing(self, lease: AbstractAsyncContextManager[Lease]) -> AsyncGenerator[Lease]:
        """Hold the lease for as long as the block lasts."""
        async with AsyncExitStack() as stack:
            try:
                given = await stack.enter_async_context(lease)
            except BaseException as failure:
                self._publish(events.reason_of(failure))
                raise
            self._publish("")
            events.publish(events.ModelLeased(self._model, given.backend))
            yield given

    def _publish(self, error: str) -> None:
        now = time.time_ns()
        if self._waited:
            events.publish_stage("queue", self._begun_ns, self._load_ns or now, "" if self._load_ns else error)
        if self._load_ns:
            events.publish_stage("load", self._load_ns, now, error)
