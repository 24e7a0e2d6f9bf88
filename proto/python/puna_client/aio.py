"""The async client."""

import asyncio
import copy
import functools
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import grpc
import grpc.aio

from puna_client import channel, operations
from puna_client.errors import UnavailableError, from_rpc
from puna_client.operations import Listed, Streamed, Unary
from puna_client.readers import Reader

P = ParamSpec("P")
Item = TypeVar("Item")
Result = TypeVar("Result")


class AsyncStream(Generic[Item, Result]):
    """A call under way: `async for` takes its items, and `await stream.result()` the whole.

    The call is cancelled when its loop is left and nothing else refers to the stream, at the end of `async with`, and
    by `cancel()`. The server then stops its work at once.
    """

    def __init__(self, call: "grpc.aio.UnaryStreamCall[Any, Any]", reader: Reader[Item, Result]) -> None:
        self._call = call
        self._reader = reader
        self._items = deque[Item]()

    def __aiter__(self) -> "AsyncStream[Item, Result]":
        return self

    async def __anext__(self) -> Item:
        while not self._items:
            try:
                message = await self._call.read()
            except grpc.aio.AioRpcError as error:
                raise from_rpc(error) from error
            if message is grpc.aio.EOF:
                raise StopAsyncIteration
            self._items.extend(self._reader.read(message))
        return self._items.popleft()

    async def result(self) -> Result:
        """Take the rest of the stream; return the result of all of it."""
        async for _ in self:
            pass
        return self._reader.result()

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()

    async def __aenter__(self) -> "AsyncStream[Item, Result]":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()


def _streaming(
    operation: Callable[P, Streamed[Item, Result]],
) -> Callable[Concatenate["AsyncClient", P], AsyncStream[Item, Result]]:
    """Return the method for a call whose caller takes the items."""

    @functools.wraps(operation)
    def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[Item, Result]:
        return self.stream(operation(*args, **kwargs))

    return method


def _collecting(
    operation: Callable[P, Streamed[Item, Result]],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, Result]]:
    """Return the method for a stream whose caller takes the result alone."""

    @functools.wraps(operation)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Result:
        async with self.stream(operation(*args, **kwargs)) as stream:
            return await stream.result()

    return method


def _unary(
    operation: Callable[P, Unary[Result]],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, Result]]:
    """Return the method for a call with one answer."""

    @functools.wraps(operation)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return await self.call(operation(*args, **kwargs))

    return method


def _listing(
    operation: Callable[P, Listed[Item]],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, list[Item]]]:
    """Return the method for a list."""

    @functools.wraps(operation)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> list[Item]:
        listed = operation(*args, **kwargs)
        items, token = await self.call(listed.page(""))
        while token:
            more, token = await self.call(listed.page(token))
            items += more
        return items

    return method


class AsyncClient:
    """A client for asyncio. Make it inside a running event loop, and close it or use it in `async with`.

        async with AsyncClient("localhost:11435") as client:
            async for delta in client.chat("llamita", "Why is the sky blue?"):
                print(delta.text, end="")

    Failed calls raise subclasses of PunaError. Cancelling a task cancels the call for which it waits.
    """

    chat = _streaming(operations.chat)
    generate = _streaming(operations.generate)
    pull = _streaming(operations.pull)
    health = _streaming(operations.health)
    embed = _collecting(operations.embed)
    list_models = _listing(operations.list_models)
    get_model = _unary(operations.get_model)
    load_model = _unary(operations.load_model)
    unload_model = _unary(operations.unload_model)
    delete_model = _unary(operations.delete_model)

    def __init__(
        self,
        target: str,
        *,
        key: str | None = None,
        tls: bool | grpc.ChannelCredentials = False,
        wait_for_ready: bool = False,
        service_config: str = channel.SERVICE_CONFIG,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """`target` is "host:port", or another name that gRPC resolves: "dns:///name:port", "unix:/path".

        `key` is an API key. `tls` is True for certificates of known authorities, or what `puna_client.tls` returns.
        With `wait_for_ready`, calls wait until a server can be reached, for their timeout at most. `service_config` is
        JSON text, and `options` are further options of the channel.
        """
        chosen = channel.options(service_config, options)
        credentials = channel.credentials(tls)
        self.channel = (
            grpc.aio.secure_channel(target, credentials, chosen)
            if credentials
            else grpc.aio.insecure_channel(target, chosen)
        )
        self.metadata = channel.metadata(key)
        """The metadata of each call; calls of the generated stubs need it too."""
        self._wait_for_ready = wait_for_ready

    def with_metadata(self, *pairs: tuple[str, str]) -> "AsyncClient":
        """Return a client on the same connections that sends further metadata: `x-request-id`, `traceparent`."""
        made = copy.copy(self)
        made.metadata = (*self.metadata, *pairs)
        return made

    async def wait_until_ready(self, model: str = "", *, timeout: float = 60.0) -> None:  # noqa: ASYNC109 - as all methods
        """Wait until the server takes requests, or with a name, until the model is loaded.

        DeadlineExceededError: it did not happen within the timeout.
        """
        end = time.monotonic() + timeout
        while True:
            call = operations.health(model, timeout=max(end - time.monotonic(), 0))
            try:
                async with self.stream(call, wait_for_ready=True) as statuses:
                    async for serving in statuses:
                        if serving:
                            return
            except UnavailableError:  # the server ends, and another one may start
                await asyncio.sleep(0.1)

    async def call(self, call: Unary[Result]) -> Result:
        """Make a call with one answer."""
        method = self.channel.unary_unary(
            call.path, request_serializer=channel.serialized, response_deserializer=call.response.FromString
        )
        try:
            answer = await method(
                call.request, timeout=call.timeout, metadata=self.metadata, wait_for_ready=self._wait_for_ready
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
        return call.result(answer)

    def stream(self, call: Streamed[Item, Result], *, wait_for_ready: bool | None = None) -> AsyncStream[Item, Result]:
        """Begin a call with a stream of messages."""
        method = self.channel.unary_stream(
            call.path, request_serializer=channel.serialized, response_deserializer=call.response.FromString
        )
        waiting = self._wait_for_ready if wait_for_ready is None else wait_for_ready
        begun = method(call.request, timeout=call.timeout, metadata=self.metadata, wait_for_ready=waiting)
        return AsyncStream(begun, call.reader)

    async def close(self) -> None:
        """Close the connections. Calls under way are cancelled."""
        await self.channel.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
