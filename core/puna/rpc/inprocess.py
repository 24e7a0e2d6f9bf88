"""A channel to services in this process: the same stubs and servicers, without a socket between.

`puna serve` runs the bridge beside the core. Every message would travel the loopback for nothing but to come back to
the same event loop, which took half of the core's time per token. Messages are handed over as they are: whoever sends
one lets go of it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio

from puna.blocking import retrieve_exception
from puna.errors import ServerEndingError
from puna.rpc.wall import cancelled

Request = TypeVar("Request")
Response = TypeVar("Response")
Pairs: TypeAlias = Sequence[tuple[str, str | bytes]]


class InProcessChannel:
    """Servicers are added to it as to a `grpc.aio.Server`; stubs are made on it as on a `grpc.aio.Channel`.

    It knows what stubs of unary, server streaming and client streaming methods need, called with nothing but a request
    and metadata. Leaving its context cancels the calls under way and waits for them.
    """

    def __init__(self) -> None:
        """Know no service yet."""
        self._handlers: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "InProcessChannel":
        """Be used."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all calls."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Do nothing: the same handlers come registered by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Serve a service, as the generated `add_…_to_server` asks for."""
        self._handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def unary_unary(self, method: str, *_: object, **__: object) -> Callable[..., Awaitable[Any]]:
        """Return what calls a method that takes one message and answers with one."""
        handler = self._handlers[method].unary_unary

        async def call(request: object, *, metadata: Pairs = ()) -> object:
            told = _Told(metadata)
            return await _result(self._task(told.guard(handler, request)))

        return call

    def unary_stream(self, method: str, *_: object, **__: object) -> "Callable[..., _Stream[Any]]":
        """Return what calls a method that answers with a stream."""
        handler = self._handlers[method].unary_stream

        def call(request: object, *, metadata: Pairs = ()) -> _Stream[Any]:
            stream = _Stream[Any](metadata)
            stream.task = self._task(stream.run(handler, request))
            return stream

        return call

    def stream_unary(self, method: str, *_: object, **__: object) -> Callable[..., Awaitable[Any]]:
        """Return what calls a method that takes a stream, here a generator, which is closed when the call is over."""
        handler = self._handlers[method].stream_unary

        async def call(requests: AsyncGenerator[Any], *, metadata: Pairs = ()) -> object:
            told = _Told(metadata)
            handed = asyncio.Queue[Any](1)
            answer = self._task(told.guard(handler, _taken(handed)))
            handing = self._task(_hand(requests, handed))
            try:
                await asyncio.wait({answer, handing}, return_when=asyncio.FIRST_COMPLETED)
                if handing.done():
                    handing.result()  # what the caller's own generator raises is raised to the caller
                return await _result(answer)
            finally:
                handing.cancel()
                answer.cancel()
                await asyncio.wait({handing, answer})

        return call

    def stream_stream(self, method: str, *_: object, **__: object) -> Callable[..., NoReturn]:
        """Return what refuses to call a method with streams both ways: stubs ask for all kinds at once."""

        def call(*_: object, **__: object) -> NoReturn:
            raise NotImplementedError(f"{method} needs a channel with a socket")

        return call

    def _task(self, work: Coroutine[Any, Any, Response]) -> asyncio.Task[Response]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(retrieve_exception)
        return task


class _Told:
    """What a handler may ask of its call: a `grpc.aio.ServicerContext` as far as servicers here use one."""

    def __init__(self, metadata: Pairs) -> None:
        self._metadata = metadata
        self._status: grpc.aio.AioRpcError | None = None

    def invocation_metadata(self) -> Pairs:
        """Return what the caller sent beside the request."""
        return self._metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Pairs = ()) -> NoReturn:
        """End the call with a status."""
        trailing = grpc.aio.Metadata(*trailing_metadata)
        self._status = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)
        raise grpc.aio.AbortError

    async def guard(self, handler: Callable[[Any, Any], Awaitable[Response]], request: object) -> Response:
        """Return what a handler returns. AioRpcError: it aborted.

        The handler is called here and not before: a task that is cancelled before its first step runs no code at all.
        """
        try:
            return await handler(request, self)
        except grpc.aio.AbortError as aborted:
            if self._status is None:
                raise
            aborted.__traceback__ = None  # it would keep the request until garbage is collected
            raise self._status from None


class _Stream(_Told, Generic[Response]):
    """A streaming call, from both ends: the handler writes to it, the caller iterates over it.

    The handler waits while the caller has not taken its last message, so that what it makes meanwhile goes together.
    """

    task: asyncio.Task[None]

    def __init__(self, metadata: Pairs) -> None:
        super().__init__(metadata)
        self._messages = asyncio.Queue[Response | None](1)
        self._left = False

    async def run(self, handler: Callable[[Any, Any], Awaitable[None]], request: object) -> None:
        """Be the handler's task."""
        try:
            await self.guard(handler, request)
        finally:
            if not self._left:
                await self._messages.put(None)

    async def write(self, message: Response) -> None:
        """Hand a message to the caller."""
        await self._messages.put(message)

    def cancel(self) -> bool:
        """End the call, of which nobody will read any more; return whether it was still running."""
        self._left = True
        return self.task.cancel()

    def __aiter__(self) -> AsyncIterator[Response]:
        return self

    async def __anext__(self) -> Response:
        if self._left:
            raise asyncio.CancelledError
        message = await self._messages.get()
        if message is None:
            await _result(self.task)  # raises what it ended with
            raise StopAsyncIteration
        return message


async def _result(task: asyncio.Task[Response]) -> Response:
    """Return what a handler's task returns, or raise what it raises.

    AioRpcError: the handler was cancelled, and not by its caller. A CancelledError would look to the caller as if its
    own client had left, and would end an answer without a word.
    """
    try:
        return await task
    except asyncio.CancelledError:
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
