"""How much gRPC calls may send, and how long that may take, before they are served.

gRPC gathers a message in memory before Python sees a byte of it, and does not say how much is there. It does not ask
the sender for more than 64 KiB, however, before the server wants the message. Every method is therefore served as one
that takes a stream, although its client sends a single message: the handler here decides when the message is wanted,
and can end the call while it waits. On the wire both kinds of methods look alike. What a streaming method writes must
be read within a time, too.

A call whose message is being gathered takes a place. There are as many places as the largest messages that may be in
memory together. Messages of honest callers arrive within milliseconds. When all places are taken, the call that has
been sending for longest loses its place once it has had it for CROWDED seconds, so that calls which send nothing cannot
lock others out. Of the calls that wait for a place the last comes first, for the same reason.
"""

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from puna.errors import ClientStalledError, InvalidRequestError, PunaError, TooLargeError
from puna.limits import Limits
from puna.rpc.large import IN_STREAM, begin, checked, finish
from puna.rpc.status import code_of, trailers
from puna.rpc.wall import Context, end

CROWDED: Final = 1.0
"""Seconds for which a call keeps its place when others wait for one."""
FEWEST: Final = 4
MOST: Final = 4096
"""Calls that may send at once, whatever the limits are."""
STREAMS: Final = 2
"""Calls whose client sends a stream, for each place: every one may be in the middle of a message."""
SMALL: Final = 64 * 1024
"""Bytes up to which a message does not count against the bytes that all messages may have together."""


class _BusyError(TooLargeError):
    def __init__(self) -> None:
        super().__init__("the server receives or holds as many bytes of requests as it may, try again later")


class _Sending:
    """A call whose message is being gathered."""

    def __init__(self, task: "asyncio.Task[Any]", now: float) -> None:
        self.task = task
        self.since = now
        self.late = False


class Intake:
    """Bounds what calls take that are not served yet. Methods are served through it: see `serving`."""

    def __init__(self, limits: Limits) -> None:
        """`limits` has the bytes of one message and of all, and the time in which a message must arrive."""
        self._places = min(max(limits.max_bodies_bytes // limits.max_request_bytes, FEWEST), MOST)
        self._most = limits.max_bodies_bytes
        self._most_elements = limits.max_json_values
        self._timeout = limits.body_timeout
        self._patience = limits.write_timeout
        self._sending: OrderedDict[_Sending, None] = OrderedDict()
        """The calls with a place, the one that came first in front."""
        self._waiting: list[asyncio.Future[None]] = []
        self._held = 0
        self._streams = 0
        self._next_look: asyncio.TimerHandle | None = None

    def serving(self, handler: Any) -> Any:  # noqa: ANN401 - gRPC's handlers have no common type
        """Return a handler that serves a method within the bounds."""
        parse = _parsing(handler.request_deserializer)
        behaviour = handler.stream_unary or handler.stream_stream
        kind = getattr(handler.request_deserializer, "__self__", None)  # the type whose FromString it is
        if behaviour is not None:
            return handler._replace(
                request_deserializer=lambda data: checked(kind, parse, data, IN_STREAM),
                **_named(handler, self._streaming(behaviour)),
            )
        behaviour = handler.unary_unary or handler.unary_stream
        if not inspect.iscoroutinefunction(behaviour):
            return handler
        whole = handler._replace(
            request_streaming=True,
            request_deserializer=lambda data: (len(data), begin(parse, data)),
            unary_unary=None,
            unary_stream=None,
        )
        if handler.response_streaming:
            behaviour = self._patient(behaviour)

        async def parsed(message: object, context: Context) -> Any:  # noqa: ANN401 - any method's answer
            try:
                request = await finish(kind, parse, message, self._most_elements)
            except InvalidRequestError as error:
                await _abort(context, error)
            return await behaviour(request, context)

        return whole._replace(**_named(whole, self._single(parsed)))

    def _single(self, behaviour: Callable[[Any, Context], Any]) -> Callable[[object, Context], Any]:
        async def serve(_: object, context: Context) -> Any:  # noqa: ANN401
            try:
                size, message = await self._message(context)
            except (ClientStalledError, InvalidRequestError, TooLargeError) as error:
                await _abort(context, error)
            held = size if size > SMALL else 0
            if self._held + held > self._most:
                await _abort(context, _BusyError())
            self._held += held
            try:
                return await behaviour(message, context)
            except grpc.aio.AbortError as aborted:
                # gRPC keeps the error until garbage is collected. Its frames must not keep the message with it.
                del message
                raise aborted.with_traceback(None) from None
            finally:
                self._held -= held

        return serve

    def _streaming(self, behaviour: Callable[[Any, Context], Any]) -> Callable[[AsyncIterator[Any], Context], Any]:
        async def serve(messages: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401
            if self._streams >= STREAMS * self._places:
                await _abort(context, _BusyError())
            self._streams += 1
            try:
                return await behaviour(messages, context)
            finally:
                self._streams -= 1

        async def generate(messages: AsyncIterator[Any], context: Context) -> AsyncGenerator[Any]:
            if self._streams >= STREAMS * self._places:
                await _abort(context, _BusyError())
            self._streams += 1
            try:
                async for each in behaviour(messages, context):
                    yield each
            finally:
                self._streams -= 1

        return serve if inspect.iscoroutinefunction(behaviour) else generate

    def _patient(self, behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Context], Any]:
        async def serve(request: object, context: Context) -> None:
            await behaviour(request, _Patient(context, self._patience))

        return serve

    async def _message(self, context: Context) -> tuple[int, Any]:
        """Receive a call's only message, with its bytes. Raises _BusyError, ClientStalledError, InvalidRequestError."""
        if len(self._sending) >= self._places:
            await self._place()
        task = asyncio.current_task()
        assert task is not None
        sending = _Sending(task, asyncio.get_running_loop().time())
        self._sending[sending] = None
        self._watch()
        try:
            # The iterator of messages would keep the message for as long as the call lasts.
            received = await context.read()
        except asyncio.CancelledError:
            if not sending.late:
                raise
            task.uncancel()
            raise ClientStalledError("the request did not arrive in time") from None
        finally:
            del self._sending[sending]
            self._wake()
        if received is grpc.aio.EOF:
            raise InvalidRequestError("the call has no message")
        size, message = received
        return size, message

    async def _place(self) -> None:
        """Wait for a place. Raises _BusyError."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(self._timeout + 2 * CROWDED):
                await future
        except (TimeoutError, asyncio.CancelledError) as error:
            if future in self._waiting:
                self._waiting.remove(future)
            else:
                self._wake()  # in place of this call, which was woken just now
            if isinstance(error, asyncio.CancelledError):
                raise
            raise _BusyError from None

    def _wake(self) -> None:
        while self._waiting and len(self._sending) < self._places:
            future = self._waiting.pop()
            if not future.done():  # a call that its client gave up has not left the line yet
                future.set_result(None)
                return

    def _watch(self) -> None:
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(min(CROWDED, self._timeout) / 2, self._look)

    def _look(self) -> None:
        """End calls that have been sending for too long."""
        self._next_look = None
        now = asyncio.get_running_loop().time()
        spare = len(self._waiting)
        for sending in self._sending:
            if now - sending.since < (min(CROWDED, self._timeout) if spare > 0 else self._timeout):
                break
            spare -= 1
            if not sending.late:
                sending.late = True
                sending.task.cancel()
        if self._sending:
            self._watch()


class _Patient:
    """A call's context, whose client must read what is written within a time."""

    def __init__(self, context: Context, seconds: float) -> None:
        self._context = context
        self._seconds = seconds
        self._stalled = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._context, name)

    async def write(self, message: object) -> None:
        """Send a message. ClientStalledError: the client does not read."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._context.write(message)
        except TimeoutError:
            self._stalled = True
            raise ClientStalledError from None

    async def abort(self, *args: Any) -> NoReturn:  # noqa: ANN401 - as gRPC has it
        """End the call with a status. A client that does not read gets none: gRPC sends nothing after a lost write."""
        if self._stalled:
            raise asyncio.CancelledError
        await self._context.abort(*args)
        raise AssertionError


class Guarded:
    """Takes servicers as a `grpc.aio.Server` does, and has a server serve them through an Intake."""

    def __init__(self, server: grpc.aio.Server, intake: Intake) -> None:
        """Both stay the caller's."""
        self._server = server
        self._intake = intake

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Do nothing: the same handlers come registered by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Serve a service, as the generated `add_…_to_server` asks for."""
        served = {name: self._intake.serving(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, served),))


def _parsing(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a deserializer that raises InvalidRequestError; gRPC logs any other as a failure of the server."""

    def parsed(data: bytes) -> Any:  # noqa: ANN401 - gRPC's messages have no common type
        try:
            return parse(data)
        except DecodeError:
            raise InvalidRequestError("the message cannot be read") from None

    return parsed


def _named(handler: Any, behaviour: object) -> dict[str, object]:  # noqa: ANN401
    """Return the field of a handler that takes a stream, with what serves it."""
    return {"stream_stream" if handler.response_streaming else "stream_unary": behaviour}


async def _abort(context: Context, error: PunaError) -> NoReturn:
    await end(context, code_of(error), str(error), trailers(error, whole_text=False))
