"""`python -m puna_llama_cpp.structured_output.server FD`: the processes that compile constraints and compute masks.

A schema of a few bytes can keep llguidance busy for minutes, take gigabytes or overflow the stack. Nothing stops it
from within its process. So each constraint gets a process of its own, which lives as long as the constrained sequence:

    host ── control ── server ─ fork ─┬─ child ── socket ── host (one sequence)
                                      └─ child ── socket ── host (another sequence)

The server reads the vocabulary once, and children share its memory, so that a fork takes two milliseconds and a child
two megabytes. The control socket carries one byte and one end of a new socket for each constraint. The server forks a
child for it. The child reads the constraint, answers with the mask of the first token, and from then on answers each
token id with the mask of the next token and the text that must follow, if the constraint leaves no choice. A mask has
one bit for each token of the vocabulary.

A child is ended by one of these:

- The kernel, when a mask takes too much processor time (an interval timer) or the child asks for too much address
  space.
- The server, when all children together have too much memory: it kills the largest.
- The server, when the host closes its end of the child's socket, whatever the child is doing.
- The server, when the control socket closes or the host dies: it kills all children and ends.

When a child died of itself or of a limit, the server tells the host why on the child's socket, of which it has a copy.

This process never imports a module that starts threads (numpy, llama.cpp): a fork would copy their locks in their
present state, and no thread of the child would ever release them.
"""

import gc
import marshal
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import llguidance

from puna.backend import ConstraintLimits, InvalidRequestError
from puna_llama_cpp.structured_output.compiler import Compiler, next_mask
from puna_llama_cpp.structured_output.wire import (
    CRASHED,
    FAILED,
    HEADER,
    MASK,
    MAX_FORCED_BYTES,
    MEMORY_LIMIT,
    REFUSED,
    TIME_LIMIT,
    TOKEN,
)

_STACK_BYTES: Final = 64 << 20
"""Bytes of stack. llguidance follows references and nested schemas by recursion."""
_CHECK_SECONDS: Final = 0.05
"""Seconds between two checks of the children's memory."""
_NICE_AFTER_SECONDS: Final = 0.1
"""Seconds of processor time after which a child gets a low priority, so that the machine stays responsive."""
_MAX_ADDRESS_SPACE: Final = 1 << 60
"""An upper bound for the limit on address space, since setrlimit refuses larger numbers."""
_PAGE_BYTES: Final = resource.getpagesize()
_OUT_OF_MEMORY_STATUSES: Final = (-signal.SIGABRT, -signal.SIGKILL, 12)
"""Exit codes of a child without memory: Rust aborts, the kernel kills, and 12 is ours after a MemoryError."""


class _Child:
    """The server's view of a child."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.nice = False
        self.too_large = False


class Server:
    """Forks a child for each socket that the host sends, and watches over the children."""

    def __init__(self, control: socket.socket, compiler: Compiler, limits: ConstraintLimits) -> None:
        """Take a compiler that has read its vocabulary."""
        self._control, self._compiler, self._limits = control, compiler, limits
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._own_bytes = 0

    def run(self) -> None:
        """Serve until the control socket closes."""
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        woken.setblocking(False)
        # A signal without a handler would not reach the wakeup descriptor.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(wake, select.POLLIN)
        self._own_bytes = _resident("self")
        while True:
            # Without children there is no memory to watch, so the process sleeps until the host asks.
            for handle, _ in self._poll.poll(_CHECK_SECONDS * 1000 if self._children else None):
                if handle == self._control.fileno():
                    if not self._fork():
                        self._end()
                        return
                elif handle == wake.fileno():
                    with suppress(BlockingIOError):
                        wake.recv(4096)
                else:
                    self._kill_disconnected(handle)
            self._reap()
            self._check_children()

    def _fork(self) -> bool:
        """Fork a child for the next socket. Return False when the control socket is closed."""
        data, handles, *_ = socket.recv_fds(self._control, 1, 1)
        if not data:
            return False
        for handle in handles:
            sock = socket.socket(fileno=handle)
            try:
                pid = os.fork()
            except OSError:  # the system has no room for another process
                _send(sock, MEMORY_LIMIT)
                sock.close()
                continue
            if not pid:
                self._become_child(sock)
            self._children[pid] = _Child(sock)
            # No events: data is for the child to read. A hang-up, which poll always reports, is all that the server
            # looks for.
            self._poll.register(sock, 0)
        return True

    def _become_child(self, sock: socket.socket) -> NoReturn:
        status = 1
        try:
            # The child must not write into the server's wakeup socket.
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A copy that stayed open here would keep these streams from ending for the processes at their other ends.
            self._control.close()
            for other in self._children.values():
                other.sock.close()
            # The limit is relative to what the server has mapped, since a child inherits that.
            limit = min(_virtual() + self._limits.memory_bytes, _MAX_ADDRESS_SPACE)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            status = serve(sock, self._compiler, self._limits)
        except MemoryError:
            status = 12
        finally:
            # Ends without the server's cleanup, which would run on copies of its objects.
            os._exit(status)

    def _kill_disconnected(self, handle: int) -> None:
        """Kill the child whose sequence is over."""
        for pid, child in self._children.items():
            if child.sock.fileno() == handle:
                # The child is not reaped yet, so its process id cannot belong to another process.
                os.kill(pid, signal.SIGKILL)
                self._poll.unregister(handle)
                return

    def _reap(self) -> None:
        """Remove children that have ended, and tell the host why if the child could not."""
        while self._children:
            # One SIGCHLD may stand for several children, so all that have ended are collected.
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            child = self._children.pop(pid)
            with suppress(KeyError):
                self._poll.unregister(child.sock)
            # The interval timer of `_limit_cpu` kills with SIGPROF.
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGPROF:
                _send(child.sock, TIME_LIMIT)
            elif child.too_large or code in _OUT_OF_MEMORY_STATUSES:
                _send(child.sock, MEMORY_LIMIT)
            elif code:
                _send(child.sock, CRASHED)
            child.sock.close()

    def _check_children(self) -> None:
        """Lower the priority of children that take long.

        Kill the largest child if all together have too much memory.
        """
        sizes = {}
        for pid, child in self._children.items():
            if not child.nice and _processor_seconds(pid) > _NICE_AFTER_SECONDS:
                child.nice = True
                with suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, pid, 10)
            # Pages shared with the server count in every child, so the server's own size is subtracted.
            sizes[pid] = _resident(str(pid)) - self._own_bytes
        if sizes and sum(sizes.values()) > self._limits.memory_bytes:
            pid = max(sizes, key=sizes.__getitem__)
            self._children[pid].too_large = True
            os.kill(pid, signal.SIGKILL)

    def _end(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        while self._children:
            self._children.pop(os.waitpid(-1, 0)[0], None)


def serve(sock: socket.socket, compiler: Compiler, limits: ConstraintLimits) -> int:
    """Compile a constraint and follow it token by token, in a child. Return the exit status."""
    length = HEADER.unpack(_read(sock, HEADER.size))[1]
    # JSON may hold lone surrogates, which the host encodes in this way.
    text = _read(sock, length).decode("utf-8", "surrogatepass")
    name, _, text = text.partition("\n")
    try:
        _limit_cpu(limits.seconds)
        native, mask = compiler.start(name, text)
    except InvalidRequestError as error:
        _limit_cpu(0)
        _send(sock, REFUSED, str(error).encode("utf-8", "replace"))
        return 0
    del text
    while True:
        forced = native.compute_ff_bytes()[:MAX_FORCED_BYTES]
        _limit_cpu(0)
        _send(sock, MASK, mask + forced + bytes([len(forced)]))
        token = TOKEN.unpack(_read(sock, TOKEN.size))[0]
        _limit_cpu(limits.mask_seconds)
        native.consume_token(token)
        try:
            mask = next_mask(native)
        except InvalidRequestError as error:
            _limit_cpu(0)
            _send(sock, FAILED, str(error).encode("utf-8", "replace"))
            return 0


def _limit_cpu(seconds: float) -> None:
    """Have the kernel kill this process after this much processor time; 0 removes the limit."""
    signal.setitimer(signal.ITIMER_PROF, min(seconds, 1e6))


def _send(sock: socket.socket, kind: bytes, data: bytes = b"") -> None:
    with suppress(OSError):  # The host may have closed its end.
        sock.sendmsg([HEADER.pack(kind, len(data)), data])


def _read(sock: socket.socket, count: int) -> bytes:
    """Read this many bytes. Ends the process if the other side has closed its end."""
    data = bytearray()
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            os._exit(0)
        data += part
    return bytes(data)


def _virtual() -> int:
    """Return the bytes of address space that this process has."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE_BYTES
    return 1 << 40


def _resident(pid: str) -> int:
    """Return the resident memory of a process in bytes; 0 without /proc."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def _processor_seconds(pid: int) -> float:
    """Return the processor time of a process in seconds; 0 without /proc."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    return 0.0


class _Tokens:
    """The vocabulary as llguidance's interface for tokenizers. It never tokenizes, since no text is forced."""

    def __init__(self, tokens: list[bytes], eos: int) -> None:
        self.tokens, self.eos_token_id = tokens, eos
        self.bos_token_id = None
        self.special_token_ids: list[int] = []
        self.is_tokenizer_wrapper = True

    def __call__(self, _text: str) -> list[int]:
        return []


def main() -> None:
    """Read the vocabulary and serve."""
    control = socket.socket(fileno=int(sys.argv[1]))
    # The host decides when this process ends; Ctrl-C reaches the whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Children inherit the stack limit. It takes effect for the main thread of each, in which llguidance runs.
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(
            resource.RLIMIT_STACK, (_STACK_BYTES if hard == resource.RLIM_INFINITY else min(_STACK_BYTES, hard), hard)
        )
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    length = HEADER.unpack(_read(control, HEADER.size))[1]
    tokens, ends, eos, special_tokens, limits = marshal.loads(_read(control, length))
    tokenizer = llguidance.LLTokenizer(_Tokens(tokens, eos), eos_token=ends or eos)  # type: ignore[arg-type]
    compiler = Compiler(tokenizer, special_tokens)
    # Compiling once loads what every compilation needs, so that children need not load it again.
    compiler.matcher("json_schema", '{"type":"object"}')
    del tokens
    gc.collect()
    # Frozen objects are not touched by the garbage collector, so a child's pages stay shared with the server.
    gc.freeze()
    Server(control, compiler, ConstraintLimits(**limits)).run()


if __name__ == "__main__":
    main()
