"""Constraints as the model's host process sees them: which tokens a sequence may produce next.

Constraints are compiled and followed in other processes; `server` explains why. `ConstraintClient` starts the server
with the first constraint, and each `Matcher` talks to one child. Three facts shape the protocol:

- A mask depends on the tokens so far and not on logits. The child computes it while llama.cpp evaluates the newest
  token, and a step of a model of useful size takes longer than the way to a process and back (50 to 90 µs).
- The decode thread may wait for a mask only briefly, since all sequences wait with it. After that, `mask_late` marks
  the sequence, and the engine leaves it out of steps until its mask has come.
- A child may die at any moment, with a message from the server or without. Errors of the socket are therefore ignored
  when sending, and the next read tells what happened.

A Matcher is used by one event loop first (`begin`) and by the decode thread afterwards. `close` may come from any
thread at any time; a lock keeps it from closing the socket under a read.
"""

import asyncio
import marshal
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from puna.backend import BackendError, Constraint, ConstraintLimits, InvalidRequestError
from puna_llama_cpp.binding.vocabulary import Vocabulary
from puna_llama_cpp.step_thread import unloaded_error
from puna_llama_cpp.structured_output.wire import (
    CRASHED,
    DISCONNECTED,
    FAILED,
    HEADER,
    KIND_NAMES,
    MASK,
    MEMORY_LIMIT,
    REFUSED,
    TIME_LIMIT,
    TOKEN,
)

# llguidance takes a token whose bytes begin with this one for a special token.
_SPECIAL = b"\xff"
_WALL_CLOCK_FACTOR: Final = 10
"""How many times its processor time a child may take by the clock, since other processes need the processors too."""
_START_SECONDS: Final = 60.0
"""Seconds that a busy machine may take to start processes."""
_STOP_SECONDS: Final = 5.0


class _DisconnectedError(BackendError):
    """The server died before the child answered."""


class Matcher:
    """The constraint of one sequence, followed by a child of the server."""

    def __init__(
        self, sock: socket.socket, constraint: Constraint, vocabulary_size: int, limits: ConstraintLimits
    ) -> None:
        """Own the socket that leads to the child."""
        self._socket, self._kind, self._size, self._limits = sock, constraint.kind, vocabulary_size, limits
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._received = bytearray()
        self._message: tuple[bytes, bytes] | None = None
        self._requested_at = time.monotonic()
        self.mask_late = False
        """True once a mask was late.

        From then on the sequence takes part only in steps that begin after its mask has come.
        """

    async def begin(self, constraint: Constraint) -> None:
        """Send the constraint and wait for the first mask. Raises InvalidRequestError if it cannot be enforced."""
        loop = asyncio.get_running_loop()
        data = f"{constraint.kind}\n{constraint.text}".encode("utf-8", "surrogatepass")
        try:
            async with asyncio.timeout(_START_SECONDS + _WALL_CLOCK_FACTOR * self._limits.seconds):
                with suppress(ConnectionError):  # the message of a dead child is read later
                    await loop.sock_sendall(self._socket, HEADER.pack(MASK, len(data)) + data)
                while not self._message_complete():
                    with suppress(ConnectionError):
                        # A reset is reported once. The next read then returns the end of the stream, which ends the
                        # loop.
                        self._receive(await loop.sock_recv(self._socket, 1 << 16))
        except TimeoutError as error:
            raise BackendError("the constraint cannot be enforced: its process does not answer") from error
        kind, text = self._message or (DISCONNECTED, b"")
        if kind == MASK:
            return
        if kind == REFUSED:
            raise InvalidRequestError(text.decode("utf-8", "replace"))
        if kind == DISCONNECTED:
            raise _DisconnectedError("the constraint cannot be enforced: its process has ended")
        raise InvalidRequestError(
            f"{KIND_NAMES[self._kind]} cannot be enforced: {self._limit_error(kind, self._limits.seconds)}"
        )

    def _limit_error(self, kind: bytes, seconds: float) -> str:
        name = "PUNA_MAX_CONSTRAINT_SECONDS" if seconds == self._limits.seconds else "PUNA_MAX_MASK_SECONDS"
        if kind == TIME_LIMIT:
            return f"it takes more than {seconds:g} seconds of processor time, the limit that {name} sets"
        if kind == MEMORY_LIMIT:
            memory = f"{self._limits.memory_bytes / (1 << 20):g} MiB"
            return f"it takes more than {memory} of memory, the limit that PUNA_MAX_CONSTRAINT_MEMORY_BYTES sets"
        return "it is nested too deeply, or refers to itself too often" if kind == CRASHED else "its process has ended"

    def wait_for_mask(self, seconds: float) -> bool:
        """Wait up to `seconds` for the next mask, or for an error message in its place.

        Return whether one of them has come.
        """
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                while not self._message_complete():
                    try:
                        self._receive(self._socket.recv(1 << 16))
                    except BlockingIOError:
                        break
                    except OSError:  # `close` was called meanwhile
                        self._receive(b"")
            if self._message_complete():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                self._give_up_on_silence()
                return False
            # Without the lock, so that `close` never waits for a mask. Its shutdown makes the poll return.
            self._poll.poll(left * 1000)

    def _give_up_on_silence(self) -> None:
        """Treat the child as disconnected if it has run far beyond its limits and the kernel has not killed it."""
        if time.monotonic() - self._requested_at > _START_SECONDS + _WALL_CLOCK_FACTOR * self._limits.mask_seconds:
            self._message = (DISCONNECTED, b"")

    def apply_mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of tokens that may not come next to minus infinity, in place.

        Raises BackendError if the constraint cannot be followed further.
        """
        while not self.wait_for_mask(1.0):
            pass
        kind, data = self._message or (DISCONNECTED, b"")
        if kind != MASK:
            why = (
                data.decode("utf-8", "replace")
                if kind == FAILED
                else self._limit_error(kind, self._limits.mask_seconds)
            )
            raise BackendError(f"the constraint cannot be followed further: {why}")
        # There are more bits than tokens in the vocabulary: of the last byte, and of the forced text behind the mask.
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        logits[bits[: self._size] == 0] = -np.inf

    def forced_text(self, seconds: float) -> bytes:
        """Return the text that must come next, if the next mask comes within `seconds`; empty if there is a choice."""
        if self.mask_late or not self.wait_for_mask(seconds):
            return b""
        kind, data = self._message or (DISCONNECTED, b"")
        return data[-1 - data[-1] : -1] if kind == MASK else b""

    def accept(self, token: int) -> None:
        """Tell the child which token was sampled. It begins to compute the next mask."""
        # The old mask goes first: it belongs to the token before, and must not be applied a second time.
        self._message, self._requested_at = None, time.monotonic()
        with suppress(OSError):  # the message of a dead child is read later
            self._socket.send(TOKEN.pack(token))

    def close(self) -> None:
        """End the child. May be called from any thread, any number of times."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for a mask
        with self._lock:
            # Only under the lock: once the descriptor is free, another thread may get its number for another file.
            self._socket.close()

    def _message_complete(self) -> bool:
        """Extract the next message once all of it has been received. Return whether there is one."""
        if self._message is None and len(self._received) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._received)
            if len(self._received) >= HEADER.size + length:
                self._message = kind, bytes(self._received[HEADER.size : HEADER.size + length])
                del self._received[: HEADER.size + length]
        return self._message is not None

    def _receive(self, data: bytes) -> None:
        self._received += data
        if not data:
            self._message = self._message or (DISCONNECTED, b"")


class ConstraintClient:
    """Creates matchers for one vocabulary."""

    def __init__(self, vocabulary: Vocabulary, limits: ConstraintLimits) -> None:
        """Start nothing yet: the vocabulary takes up to a second to send, and most models never see a constraint."""
        self._vocabulary, self._limits = vocabulary, limits
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._ready = self._closed = False

    async def matcher(self, constraint: Constraint) -> Matcher:
        """Compile a constraint.

        Raises InvalidRequestError if it is wrong, too large, or uses a feature that cannot be enforced.
        """
        if constraint.kind not in KIND_NAMES:
            raise InvalidRequestError(f'unknown kind of constraint "{constraint.kind}"')
        try:
            return await self._begin(constraint)
        except _DisconnectedError:  # The server had died; a second attempt starts a new one.
            return await self._begin(constraint)

    async def _begin(self, constraint: Constraint) -> Matcher:
        # A fork takes 2 to 3 ms, which the event loop can bear; starting the server takes up to a second and needs a
        # thread.
        sock = self._connect() if self._ready and self._running() else await asyncio.to_thread(self._connect)
        sock.setblocking(False)
        matcher = Matcher(sock, constraint, self._vocabulary.size, self._limits)
        try:
            await matcher.begin(constraint)
        except BaseException:
            # Also on cancellation, since the child must not outlive its request.
            matcher.close()
            raise
        return matcher

    def _running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def _connect(self) -> socket.socket:
        """Return a socket that leads to a new child. Starts the server if none runs."""
        with self._lock:
            if self._closed:
                raise unloaded_error()
            # A second attempt, for a server that died between the check and the use.
            for _ in range(2):
                if not self._running():
                    self._stop()
                    self._start()
                assert self._control is not None
                # Our copy of the child's end is closed at once. Otherwise its stream would never end for us when the
                # child dies.
                ours, theirs = socket.socketpair()
                with theirs:
                    try:
                        # A descriptor travels only together with at least one byte.
                        socket.send_fds(self._control, [b"+"], [theirs.fileno()])
                    except OSError:  # The server died between the two calls.
                        ours.close()
                        self._stop()
                        continue
                return ours
        raise BackendError("constraints cannot be enforced: their process does not start")

    def _start(self) -> None:
        """Start the server and send it the vocabulary. Takes up to a second."""
        vocabulary = self._vocabulary
        special = {token for token in range(vocabulary.size) if vocabulary.is_special(token)}
        spelled = [vocabulary.token_bytes(token, special=True) for token in range(vocabulary.size)]
        tokens = [_SPECIAL * (token in special) + raw for token, raw in enumerate(spelled)]
        # Of several tokens with the same text the lowest id wins, since it comes last.
        marks = {spelled[token].decode("utf-8", "replace"): token for token in sorted(special, reverse=True)}
        # llguidance takes the first end token for the usual one.
        ends = sorted(vocabulary.end_tokens, key=lambda token: token != vocabulary.eos)
        data = marshal.dumps((tokens, ends, vocabulary.eos, marks, asdict(self._limits)))
        self._control, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "puna_llama_cpp.structured_output.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # llguidance may print the constraint, which is a part of a request
            )
        self._control.settimeout(_START_SECONDS)
        with suppress(OSError):  # The next connection attempt notices a server that has died.
            self._control.sendall(HEADER.pack(MASK, len(data)) + data)
        self._ready = True

    def _stop(self) -> None:
        self._ready = False
        if self._control is not None:
            self._control.close()
            self._control = None
        # The server ends by itself when its control socket closes.
        if self._server is not None:
            try:
                self._server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None

    def close(self) -> None:
        """End the server and with it all children. None is started any more."""
        with self._lock:
            self._closed = True
            self._stop()
