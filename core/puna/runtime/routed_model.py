"""A loaded model of several replicas as one request sees it: each sequence runs on a replica that is chosen for it."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from puna.backend import Finish, LoadedModel, Prefill, SequenceEvent, SequenceRequest
from puna.errors import BackendCrashedError
from puna.runtime.admission import SlotWithdrawnError
from puna.runtime.admitted_model import HOST_ENDED, AdmittedModel, Renew
from puna.runtime.prompt_memory import blocks_of
from puna.runtime.replicas import Replica, Replicas

T = TypeVar("T")


class RoutedModel(AdmittedModel):
    """Chooses a replica for each sequence and each call, and another one when its host dies before the first token."""

    def __init__(self, replicas: Replicas, on_position: Callable[[int], None], position: int, renew: Renew) -> None:
        """See AdmittedModel. `renew` is needed when no replica is left."""
        first = replicas.members[0]
        super().__init__(first.model, first.limiter, on_position, position, renew)
        self._replicas = replicas

    async def _run(
        self, request: SequenceRequest, on_position: Callable[[int], None], on_slot: Callable[[], None] | None = None
    ) -> AsyncGenerator[SequenceEvent]:
        blocks = blocks_of(request)
        began = time.perf_counter_ns()
        failure: BackendCrashedError | None = None
        prefilled, avoid = 0, ""
        while True:
            placement, answered = self._replicas.place(request, blocks, avoid), False
            replica, withdrawn = placement.replica, False
            try:
                async with replica.limiter.slot(request.priority, on_position):
                    self._report(0)
                    self.queued_ns += time.perf_counter_ns() - began
                    if on_slot is not None:
                        on_slot()
                    placement.begin()
                    async with aclosing(replica.model.generate(request)) as found:
                        async for event in found:
                            if isinstance(event, Prefill):
                                if event.done_tokens <= prefilled and failure is not None:
                                    continue
                                prefilled = event.done_tokens
                            elif not answered:
                                answered = True
                                placement.first_token()
                            if isinstance(event, Finish):
                                placement.finish(request, event)
                            yield event
                return
            except SlotWithdrawnError:
                # An attempt that has not begun does not count.
                withdrawn = True
            except BackendCrashedError as error:
                if answered or failure is not None:
                    raise
                failure, avoid, began = error, replica.node, time.perf_counter_ns()
            finally:
                placement.end()
            if replica.lost or not withdrawn:
                await self._find_living(replica, failure or BackendCrashedError(HOST_ENDED))

    async def _find_living(self, failed: Replica, error: BackendCrashedError) -> None:
        """Wait until there is a replica whose host lives. Raises `error` if there will be none."""
        if failed in self._replicas.members:
            assert self._renew is not None
            loaded = await self._renew(error)
            if loaded.replicas is None:
                raise error
            self._replicas = loaded.replicas

    async def _answer(self, call: Callable[[LoadedModel], Awaitable[T]]) -> T:
        """Return the answer of a call of one message, which is repeated once if the host dies."""
        replica = self._replicas.place_call()
        try:
            return await self._counted(replica, call)
        except BackendCrashedError as error:
            await self._find_living(replica, error)
        return await self._counted(self._replicas.place_call(replica.node), call)

    @staticmethod
    async def _counted(replica: Replica, call: Callable[[LoadedModel], Awaitable[T]]) -> T:
        replica.calls += 1
        try:
            return await call(replica.model)
        finally:
            replica.calls -= 1
            replica.idle_since = time.monotonic()
