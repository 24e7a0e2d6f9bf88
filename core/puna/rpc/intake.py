"""Limits on calls that are still sending their request.

gRPC collects a whole message in memory before Python sees any of it, and does not report its size meanwhile. But HTTP/2
flow control lets the client send no more than 64 KiB until the server reads the message. Every method is therefore
registered as a client streaming method, although its client sends one message: the handler here decides when the
message is read, and can end the call while it waits. On the wire, unary and client streaming methods look alike.

A call takes a place while its message is received. There are as many places as messages of the largest size may be in
memory together. Messages of honest clients arrive within milliseconds. When all places are taken, the call that has
held its place longest loses it after CROWDED seconds, so that calls which send nothing cannot lock others out. For the
same reason, the call that came last is served first among those that wait for a place.

`puna.rpc.writing` bounds the time in which a client must read each message of its answer.
"""

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from puna.errors import ClientStalledError, InvalidRequestError, TooLargeError
from puna.limits import Limits
from puna.rpc.authorization import Admission
from puna.rpc.call_events import reporting
from puna.rpc.error_boundary import Context, refuse
from puna.rpc.large import IN_STREAM, begin, checked, finish
from puna.rpc.writing import AnswerContext, Unread

CROWDED: Final = 1.0
"""Seconds after which a call loses its place if another waits for one."""
# With limits that allow a single message at once, one slow client would still stop all others.
FEWEST: Final = 4
MOST: Final = 4096
"""Most places, whatever the limits are."""
STREAMS: Final = 2
"""Client streaming calls per place. Each may hold an incomplete message."""
SMALL: Final = 64 * 1024
"""Bytes up to which a message does not count against the limit on all messages together."""


class _BusyError(TooLargeError):
    def __init__(self) -> None:
        super().__init__("all requests together exceed the limit on their size, try again later")


class _Sending:
    """A call whose message is being received."""

    def __init__(self, task: "asyncio.Task[Any]", now: float) -> None:
        self.task = task
        self.since = now
        self.late = False


class Intake:
    """The limits on calls that are not served yet. `serving` wraps a method's handler."""

    def __init__(self, limits: Limits) -> None:
        """`limits` holds the sizes of one message and of all together, and the timeouts."""
        self._places = min(max(limits.max_bodies_bytes // limits.max_request_bytes, FEWEST), MOST)
        self._most = limits.max_bodies_bytes
        self._most_elements = limits.max_json_values
        self._timeout = limits.body_timeout
        self._patience = limits.write_timeout
        self._unread = Unread(limits.max_bodies_bytes)
        self._sending: OrderedDict[_Sending, None] = OrderedDict()
        """The calls with a place, the oldest first."""
        self._waiting: list[asyncio.Future[None]] = []
        self._held = 0
        self._streams = 0
        self._next_look: asyncio.TimerHandle | None = None

    def serving(self, handler: Any) -> Any:  # noqa: ANN401 - gRPC's handlers have no common type
        """Return a handler that applies the limits and then calls the given one."""
        parse = _parsing(handler.request_deserializer)
        # Methods that stream already read their messages one by one. Only the number of such calls is bounded.
        behaviour = handler.stream_unary or handler.stream_stream
        kind = getattr(handler.request_deserializer, "__self__", None)  # FromString is a method of the type
        if behaviour is not None:
            return handler._replace(
                request_deserializer=lambda data: checked(kind, parse, data, IN_STREAM),
                **_named(handler, self._streaming(behaviour)),
            )
        behaviour = handler.unary_unary or handler.unary_stream
        # Only coroutine handlers can be wrapped. All servicers of Puna are written so; see puna.rpc.error_boundary.
        if not inspect.iscoroutinefunction(behaviour):
            return handler
        whole = handler._replace(
            request_streaming=True,
            # The deserializer is the only place that sees the encoded size.
            request_deserializer=lambda data: (len(data), begin(parse, data)),
            unary_unary=None,
            unary_stream=None,
        )
        behaviour = self._writing(behaviour) if handler.response_streaming else self._answering(behaviour)

        async def parsed(message: object, context: Context) -> Any:  # noqa: ANN401 - any method's answer
            try:
                request = await finish(kind, parse, message, self._most_elements)
            except InvalidRequestError as error:
                await refuse(context, error)
            return await behaviour(request, context)

        return whole._replace(**_named(whole, self._single(parsed)))

    def _single(self, behaviour: Callable[[Any, Context], Any]) -> Callable[[object, Context], Any]:
        async def serve(_: object, context: Context) -> Any:  # noqa: ANN401
            try:
                size, message = await self._message(context)
            except (ClientStalledError, InvalidRequestError, TooLargeError) as error:
                await refuse(context, error)
            # Small messages do not count, so that a server under a flood of large ones still answers health checks and
            # cancellations.
            held = size if size > SMALL else 0
            if self._held + held > self._most:
                await refuse(context, _BusyError())
            self._held += held
            try:
                return await behaviour(message, context)
            except grpc.aio.AbortError as aborted:
                # gRPC holds the error until the next garbage collection. Its frames must not hold the message.
                del message
                raise aborted.with_traceback(None) from None
            finally:
                self._held -= held

        return serve

    def _streaming(self, behaviour: Callable[[Any, Context], Any]) -> Callable[[AsyncIterator[Any], Context], Any]:
        async def serve(messages: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401
            # A stream holds no place, since it may pause for long between its messages.
            if self._streams >= STREAMS * self._places:
                await refuse(context, _BusyError())
            self._streams += 1
            try:
                return await behaviour(messages, context)
            finally:
                self._streams -= 1

        async def generate(messages: AsyncIterator[Any], context: Context) -> AsyncGenerator[Any]:
            if self._streams >= STREAMS * self._places:
                await refuse(context, _BusyError())
            self._streams += 1
            try:
                async for each in behaviour(messages, context):
                    yield each
            finally:
                self._streams -= 1

        return serve if inspect.iscoroutinefunction(behaviour) else generate

    def _writing(self, behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Context], Any]:
        async def serve(request: object, context: Context) -> None:
            answer = AnswerContext(context, self._patience)
            try:
                await behaviour(request, answer)
            finally:
                answer.close()

        return serve

    def _answering(self, behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Context], Any]:
        async def serve(request: object, context: Context) -> Any:  # noqa: ANN401 - any method's answer
            answer = await behaviour(request, context)
            try:
                return self._unread.counted(context, answer)
            except TooLargeError as error:
                await refuse(context, error)

        return serve

    async def _message(self, context: Context) -> tuple[int, Any]:
        """Receive the message of a unary call; return its size and the message.

        Raises _BusyError, ClientStalledError and InvalidRequestError.
        """
        # gRPC allocates the message only while `context.read()` waits below, so a call without a place costs 64 KiB at
        # most.
        if len(self._sending) >= self._places:
            await self._place()
        task = asyncio.current_task()
        assert task is not None
        sending = _Sending(task, asyncio.get_running_loop().time())
        self._sending[sending] = None
        self._watch()
        try:
            # Iterating over the messages instead would hold the message until the call ends.
            received = await context.read()
        except asyncio.CancelledError:
            if not sending.late:
                raise
            # `_look` cancelled the task, not the client. Without this, the error boundary would take the call for
            # cancelled and send no status.
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
            # A place becomes free within CROWDED seconds if the clients in front are silent, so this timeout is met
            # under overload only.
            async with asyncio.timeout(self._timeout + 2 * CROWDED):
                await future
        except (TimeoutError, asyncio.CancelledError) as error:
            if future in self._waiting:
                self._waiting.remove(future)
            else:
                # A place was given to this call as it ended. Without this, no call would take the place.
                self._wake()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise _BusyError from None

    def _wake(self) -> None:
        while self._waiting and len(self._sending) < self._places:
            # From the end: the newest first. A flood of silent calls then waits for itself, and honest calls overtake
            # it.
            future = self._waiting.pop()
            # A call that was cancelled in this turn of the loop is still in the list.
            if not future.done():
                future.set_result(None)
                return

    def _watch(self) -> None:
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(min(CROWDED, self._timeout) / 2, self._look)

    def _look(self) -> None:
        """Cancel calls that have been sending for too long."""
        self._next_look = None
        now = asyncio.get_running_loop().time()
        # As many calls lose their places as others wait, so an uncrowded server is patient.
        spare = len(self._waiting)
        # Oldest first. The first call that is young enough ends the search.
        for sending in self._sending:
            if now - sending.since < (min(CROWDED, self._timeout) if spare > 0 else self._timeout):
                break
            spare -= 1
            if not sending.late:
                sending.late = True
                sending.task.cancel()
        if self._sending:
            self._watch()


class Guarded:
    """A `grpc.aio.Server` to which servicers are added. It wraps their handlers and adds them to the real server."""

    def __init__(self, server: grpc.aio.Server, intake: Intake, admission: Admission | None = None) -> None:
        """The caller owns all three. `admission` decides before `intake` receives the message."""
        self._server = server
        self._intake = intake
        self._admission = admission

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Do nothing. The generated code passes the same handlers to add_registered_method_handlers."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Add the methods of a service. Called by the generated `add_…_to_server`."""
        served = {name: self._intake.serving(handler) for name, handler in handlers.items()}
        admitted = self._admission.guarding(service, served) if self._admission else served
        reported = reporting(service, admitted)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, reported),))


def _parsing(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a deserializer that raises InvalidRequestError. gRPC would log other errors as the server's."""

    def parsed(data: bytes) -> Any:  # noqa: ANN401 - gRPC's messages have no common type
        try:
            return parse(data)
        except DecodeError:
            raise InvalidRequestError("the message cannot be read") from None

    return parsed


def _named(handler: Any, behaviour: object) -> dict[str, object]:  # noqa: ANN401
    """Return the field of a client streaming handler, as keyword arguments of _replace."""
    return {"stream_stream" if handler.response_streaming else "stream_unary": behaviour}
