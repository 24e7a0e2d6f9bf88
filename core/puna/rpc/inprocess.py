"""A gRPC channel to services of this process, without a socket.

`puna serve` runs the bridge and the core on one event loop. Over a socket, each message would be encoded, cross the
loopback interface and be decoded by the same loop, which took half of the core's time per token. This channel hands
messages over as objects. The sender must not change a message that is taken.

Stubs and servicers are the generated ones. A call is a task that runs the servicer's coroutine. A streaming call has a
queue of one message. Until the caller has taken it, the servicer adds the items that become ready, so that they travel
together, as they do over a socket.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio

from puna.blocking import retrieve_exception
from puna.errors import ServerEndingError
from puna.rpc.authorization import Admission
from puna.rpc.error_boundary import cancelled
from puna.spsc_queue import SpscQueue

Request = TypeVar("Request")
Response = TypeVar("Response")
Pairs: TypeAlias = Sequence[tuple[str, str | bytes]]


class InProcessChannel:
    """A `grpc.aio.Server` to which servicers are added, and a `grpc.aio.Channel` on which stubs are made.

    It supports unary, server streaming and client streaming methods, called with a request and metadata alone. Leaving
    its context cancels running calls and waits for them.
    """

    def __init__(self, admission: Admission | None = None) -> None:
        """Create a channel without services. `admission` decides about each call; without it all are admitted."""
        self._admission = admission
        self._handlers: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "InProcessChannel":
        """Return the channel."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel running calls and wait for them."""
        for task in self._tasks:
            # Cancelled first and awaited together, so that one slow call does not delay the others.
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Do nothing. The generated code passes the same handlers to add_registered_method_handlers."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Add the methods of a service. Called by the generated `add_…_to_server`."""
        admitted = self._admission.guarding(service, handlers) if self._admission else handlers
        self._handlers.update({f"/{service}/{name}": handler for name, handler in admitted.items()})

    def unary_unary(self, method: str, *_: object, **__: object) -> Callable[..., Awaitable[Any]]:
        """Return a callable for a unary method."""
        handler = self._handlers[method].unary_unary

        async def call(request: object, *, metadata: Pairs = ()) -> object:
            context = _InProcessContext(metadata)
            return await _result(self._task(context.guard(handler, request)))

        return call

    def unary_stream(self, method: str, *_: object, **__: object) -> "Callable[..., InProcessStream[Any]]":
        """Return a callable for a server streaming method."""
        handler = self._handlers[method].unary_stream

        def call(request: object, *, metadata: Pairs = ()) -> InProcessStream[Any]:
            stream = InProcessStream[Any](metadata)
            stream.task = self._task(stream.run(handler, request))
            return stream

        return call

    def stream_unary(self, method: str, *_: object, **__: object) -> Callable[..., Awaitable[Any]]:
        """Return a callable for a client streaming method. It takes a generator and closes it when the call ends."""
        handler = self._handlers[method].stream_unary

        async def call(requests: AsyncGenerator[Any], *, metadata: Pairs = ()) -> object:
            context = _InProcessContext(metadata)
            handed = asyncio.Queue[Any](1)
            # Two tasks, since the handler may answer before the caller has sent everything, and the caller's generator
            # may fail before the handler answers.
            answer = self._task(context.guard(handler, _taken(handed)))
            handing = self._task(_hand(requests, handed))
            try:
                await asyncio.wait({answer, handing}, return_when=asyncio.FIRST_COMPLETED)
                if handing.done():
                    handing.result()  # an exception of the caller's generator goes back to the caller
                return await _result(answer)
            finally:
                handing.cancel()
                answer.cancel()
                # The caller's generator reads an HTTP body, which must not be read any more after this returns.
                await asyncio.wait({handing, answer})

        return call

    def stream_stream(self, method: str, *_: object, **__: object) -> Callable[..., NoReturn]:
        """Return a callable that refuses. Stubs create callables for all methods, used or not."""

        def call(*_: object, **__: object) -> NoReturn:
            raise NotImplementedError(f"{method} needs a channel with a socket")

        return call

    def _task(self, work: Coroutine[Any, Any, Response]) -> asyncio.Task[Response]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(retrieve_exception)
        return task


class _InProcessContext:
    """The parts of a `grpc.aio.ServicerContext` that servicers here use."""

    def __init__(self, metadata: Pairs) -> None:
        self._metadata = metadata
        self._status: grpc.aio.AioRpcError | None = None

    def invocation_metadata(self) -> Pairs:
        """Return the metadata of the call."""
        return self._metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Pairs = ()) -> NoReturn:
        """End the call with a status, by raising AbortError as grpc.aio does."""
        trailing = grpc.aio.Metadata(*trailing_metadata)
        self._status = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)
        raise grpc.aio.AbortError

    async def guard(self, handler: Callable[[Any, Any], Awaitable[Response]], request: object) -> Response:
        """Run a handler and return its answer. AioRpcError: the handler aborted the call.

        The handler is called here rather than by the caller, because a coroutine object whose task is cancelled before
        its first step is never run, and Python warns of it.
        """
        try:
            return await handler(request, self)
        except grpc.aio.AbortError as aborted:
            if self._status is None:
                raise
            aborted.__traceback__ = None  # its frames would hold the request until the next garbage collection
            raise self._status from None


class InProcessStream(_InProcessContext, Generic[Response]):
    """A streaming call: the handler writes to it, and the caller iterates over it."""

    task: asyncio.Task[None]

    def __init__(self, metadata: Pairs) -> None:
        super().__init__(metadata)
        self._messages: SpscQueue[Response | None] = SpscQueue(1)
        self._left = False

    async def run(self, handler: Callable[[Any, Any], Awaitable[None]], request: object) -> None:
        """Run the handler, then mark the end of the stream."""
        try:
            await self.guard(handler, request)
        finally:
            # A caller that has left takes nothing more, so putting into the full queue would block for ever.
            if not self._left:
                await self._messages.put(None)

    async def write(self, message: Response) -> None:
        """Pass a message to the caller, and wait while the previous one is not taken."""
        await self._messages.put(message)

    def offer(self, message: Response) -> bool:
        """Pass a message to the caller unless the previous one is not taken. Return whether it was passed."""
        return self._messages.put_nowait(message)

    def untaken(self) -> Response | None:
        """Return the message that the caller has not taken yet; None if there is none.

        The handler may add to it as long as it does not wait in between.
        """
        return self._messages.first()

    def cancel(self) -> bool:
        """Cancel the call on behalf of the caller. Return whether it was running."""
        self._left = True
        return self.task.cancel()

    def __aiter__(self) -> AsyncIterator[Response]:
        return self

    async def __anext__(self) -> Response:
        # A cancelled call of grpc.aio raises CancelledError here, too.
        if self._left:
            raise asyncio.CancelledError
        message = await self._messages.get()
        if message is None:
            await _result(self.task)  # raises the handler's error
            raise StopAsyncIteration
        return message


async def _result(task: asyncio.Task[Response]) -> Response:
    """Return the result of a handler's task, or raise its error.

    AioRpcError: the handler was cancelled, but not by its caller. A CancelledError would tell the caller that its own
    client had left, and would end the client's answer without an error.
    """
    try:
        return await task
    except asyncio.CancelledError:
        # Only two cases are the caller's own cancellation: the task runs on, or this task was cancelled itself.
        if not task.cancelled() or cancelled():
            raise
    none = grpc.aio.Metadata()
    raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, none, none, str(ServerEndingError()))


async def _hand(requests: AsyncGenerator[Request], handed: asyncio.Queue[Request | None]) -> None:
    async with aclosing(requests):
        async for request in requests:
            await handed.put(request)
    await handed.put(None)


async def _taken(handed: asyncio.Queue[Request | None]) -> AsyncGenerator[Request]:
    while (request := await handed.get()) is not None:
        yield request
