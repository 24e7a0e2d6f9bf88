"""Writing answers: bounds for clients that do not read, and the choice of messages to compress.

gRPC keeps a message in memory until the client has read it, and it has no operation that ends a call before: a status
waits behind the message. So a stream whose client does not read is ended on this side alone. Its model stops and its
slot is free, while its last message and its place among the calls stay until the client reads, or its connection ends.
Large unary answers are counted together, and further ones are refused, while those of streams are small.

gRPC compresses on the event loop, with gzip, if the client accepts it. That pays for texts that cross a network.
Messages of a few tokens would take longer and become no shorter. Large ones would hold up the loop: 128 KiB of JSON
take 10 ms and become a sixth. Vectors take twice as long and become a fourteenth shorter. Clients on this machine get
no compressed messages.
"""

import asyncio
from typing import Any, Final, NoReturn

from google.protobuf.message import Message

from puna.errors import ClientStalledError, TooLargeError
from puna.rpc.error_boundary import Context

LEAST_BYTES: Final = 1 << 10
"""Size from which messages are compressed."""
MOST_BYTES: Final = 1 << 18
"""Size up to which messages are compressed."""
LARGE_BYTES: Final = 1 << 20
"""Size from which unary answers are counted until they are read."""
_VECTORS: Final = ("EmbedResponse", "StreamEmbedResponse", "StreamVectorsResponse")
"""Messages that hold little but random numbers."""
# An IPv4 client of a socket for both families shows as ::ffff:127.
_LOCAL: Final = ("unix", "ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "ipv6:[::ffff:127.", "ipv6:%5B::ffff:127.")


def _is_remote(context: Context) -> bool:
    return not context.peer().startswith(_LOCAL)


def _compressible(message: Message) -> bool:
    return LEAST_BYTES <= message.ByteSize() <= MOST_BYTES and message.DESCRIPTOR.name not in _VECTORS


class Unread:
    """The bytes of large unary answers that clients have not read yet."""

    def __init__(self, most: int) -> None:
        """`most`: bytes of all such answers together."""
        self._most = most
        self._held = 0

    def counted(self, context: Context, answer: Any) -> Any:  # noqa: ANN401 - any method's answer
        """Return the answer of a unary method. TooLargeError: clients leave too many bytes unread.

        gRPC sends the answer within the task that runs the method, after the method has returned. So the end of the
        task is the time at which the client has the answer, or its connection is gone.
        """
        size = answer.ByteSize()
        if not (_is_remote(context) and _compressible(answer)):
            context.disable_next_message_compression()
        task = asyncio.current_task()
        if size > LARGE_BYTES and task is not None:
            if self._held + size > self._most:
                raise TooLargeError("clients do not read the large answers that they have, try again later")
            self._held += size
            task.add_done_callback(lambda _: self._release(size))
        return answer

    def _release(self, size: int) -> None:
        self._held -= size


class AnswerContext:
    """A call's context that bounds the time in which the client reads each message.

    One timer serves all messages of the call, since one for each token would cost as much as sending it. `close` stops
    it at the end of the call.
    """

    def __init__(self, context: Context, seconds: float) -> None:
        self._context = context
        self._seconds = seconds
        self._stalled = False
        self._compresses = _is_remote(context)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        """The task that writes."""
        self._began: float | None = None
        """When the message that is being written was given to gRPC, by the loop's clock; None: none is."""
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._context, name)

    async def write(self, message: Message) -> None:
        """Send a message. ClientStalledError: the client did not read in time."""
        # The size is asked for only where it counts, since this is the path of every token.
        if not (self._compresses and _compressible(message)):
            self._context.disable_next_message_compression()
        self._task = asyncio.current_task()
        self._began = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._began + self._seconds, self._look)
        try:
            await self._context.write(message)
        except asyncio.CancelledError:
            # Only `_look` sets the flag. The client may have cancelled the call at the same moment.
            if not self._stalled or self._task is None or self._task.uncancel() > 0:
                raise
            raise ClientStalledError from None
        finally:
            self._began = None

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Interrupt a write that takes too long, or look again when the current one would."""
        self._timer = None
        if self._began is None:
            return
        due = self._began + self._seconds
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
        elif self._task is not None and not self._stalled:
            self._stalled = True
            self._task.cancel()

    async def abort(self, *args: Any) -> NoReturn:  # noqa: ANN401 - as gRPC has it
        """End the call with a status. gRPC sends none to a client that does not read."""
        if self._stalled:
            raise asyncio.CancelledError
        await self._context.abort(*args)
        raise AssertionError
