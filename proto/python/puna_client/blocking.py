"""The sync client. It has the methods of the async one, and may be used by several threads."""

import copy
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import grpc

from puna_client import channel, operations
from puna_client.errors import UnavailableError, from_rpc
from puna_client.operations import Listed, Streamed, Unary
from puna_client.readers import Reader

P = ParamSpec("P")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Stream(Generic[Item, Result]):
    """A call under way: `for` takes its items, and `stream.result()` the whole.

    The call is cancelled when its loop is left and nothing else refers to the stream, at the end of `with`, and by
    `cancel()`, which another thread may call. The server then stops its work at once.
    """

    def __init__(self, call: Any, reader: Reader[Item, Result]) -> None:  # noqa: ANN401 - of grpc, which has no type
        self._call = call
        self._reader = reader
        self._items = deque[Item]()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        while not self._items:
            try:
                message = next(self._call)
            except grpc.RpcError as error:
                raise from_rpc(error) from error
            self._items.extend(self._reader.read(message))
        return self._items.popleft()

    def result(self) -> Result:
        """Take the rest of the stream; return the result of all of it."""
        for _ in self:
            pass
        return self._reader.result()

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()

    def __enter__(self) -> "Stream[Item, Result]":
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()


def _streaming(
    operation: Callable[P, Streamed[Item, Result]],
) -> Callable[Concatenate["Client", P], Stream[Item, Result]]:
    """Return the method for a call whose caller takes the items."""

    @functools.wraps(operation)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Stream[Item, Result]:
        return self.stream(operation(*args, **kwargs))

    return method


def _collecting(operation: Callable[P, Streamed[Item, Result]]) -> Callable[Concatenate["Client", P], Result]:
    """Return the method for a stream whose caller takes the result alone."""

    @functools.wraps(operation)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Result:
        with self.stream(operation(*args, **kwargs)) as stream:
            return stream.result()

    return method


def _unary(operation: Callable[P, Unary[Result]]) -> Callable[Concatenate["Client", P], Result]:
    """Return the method for a call with one answer."""

    @functools.wraps(operation)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return self.call(operation(*args, **kwargs))

    return method


def _listing(operation: Callable[P, Listed[Item]]) -> Callable[Concatenate["Client", P], list[Item]]:
    """Return the method for a list."""

    @functools.wraps(operation)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> list[Item]:
        listed = operation(*args, **kwargs)
        items, token = self.call(listed.page(""))
        while token:
            more, token = self.call(listed.page(token))
            items += more
        return items

    return method


class Client:
    """A client for threads. Close it or use it in `with`.

        with Client("localhost:11435") as client:
            for delta in client.chat("llamita", "Why is the sky blue?"):
                print(delta.text, end="")

    Failed calls raise subclasses of PunaError.
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
        """The arguments are those of AsyncClient."""
        chosen = channel.options(service_config, options)
        credentials = channel.credentials(tls)
        self.channel = (
            grpc.secure_channel(target, credentials, chosen) if credentials else grpc.insecure_channel(target, chosen)
        )
        self.metadata = channel.metadata(key)
        """The metadata of each call; calls of the generated stubs need it too."""
        self._wait_for_ready = wait_for_ready

    def with_metadata(self, *pairs: tuple[str, str]) -> "Client":
        """Return a client on the same connections that sends further metadata: `x-request-id`, `traceparent`."""
        made = copy.copy(self)
        made.metadata = (*self.metadata, *pairs)
        return made

    def wait_until_ready(self, model: str = "", *, timeout: float = 60.0) -> None:
        """Wait until the server takes requests, or with a name, until the model is loaded.

        DeadlineExceededError: it did not happen within the timeout.
        """
        end = time.monotonic() + timeout
        while True:
            call = operations.health(model, timeout=max(end - time.monotonic(), 0))
            try:
                with self.stream(call, wait_for_ready=True) as statuses:
                    for serving in statuses:
                        if serving:
                            return
            except UnavailableError:  # the server ends, and another one may start
                time.sleep(0.1)

    def call(self, call: Unary[Result]) -> Result:
        """Make a call with one answer."""
        method = self.channel.unary_unary(
            call.path, request_serializer=channel.serialized, response_deserializer=call.response.FromString
        )
        try:
            answer = method(
                call.request, timeout=call.timeout, metadata=self.metadata, wait_for_ready=self._wait_for_ready
            )
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        return call.result(answer)

    def stream(self, call: Streamed[Item, Result], *, wait_for_ready: bool | None = None) -> Stream[Item, Result]:
        """Begin a call with a stream of messages."""
        method = self.channel.unary_stream(
            call.path, request_serializer=channel.serialized, response_deserializer=call.response.FromString
        )
        waiting = self._wait_for_ready if wait_for_ready is None else wait_for_ready
        begun = method(call.request, timeout=call.timeout, metadata=self.metadata, wait_for_ready=waiting)
        return Stream(begun, call.reader)

    def close(self) -> None:
        """Close the connections. Calls under way are cancelled."""
        self.channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
