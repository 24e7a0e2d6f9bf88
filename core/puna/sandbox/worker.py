"""The worker process: renders, reads and probes templates, one request after the other.

Confinement. Before its first request a worker limits its own memory, files and processes. It ends in three ways. The
core kills it at its deadline. A kernel timer ends it one second after the latest deadline, so that no worker outlives a
core that was killed. Where the system has a parent-death signal, the worker ends with the core at once.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from puna.errors import TemplateError, TemplateRefusedError
from puna.go.template import facts
from puna.go.template.parser import parse
from puna.process.lifeline import die_with_parent
from puna.prompt.go_template.render import render_go, render_suffix
from puna.prompt.jinja.template import ChatTemplate
from puna.sandbox import wire
from puna.sandbox.wire import JSON

CACHED_TEMPLATES: Final = 64
"""Number of parsed templates that a worker keeps."""
_PR_SET_NO_NEW_PRIVS: Final = 38
_LATER: Final = 1.0
"""Seconds after the core's deadline at which the kernel's timer ends the worker."""
_OPEN_FILES: Final = 16
_YIELDING: Final = 15
"""The niceness of a worker of the slow lane."""


def main() -> None:
    """Answer requests until the core closes the socket."""
    die_with_parent()
    # The core decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=0) as core:
        # Sent after the imports and before the limits: the core counts the start separately from the first request.
        core.sendall(wire.pack("ready"))
        settings = _receive(core)
        # After the imports, which need files and memory that no template is allowed to use.
        _confine(settings["memory"])
        if settings["yielding"]:
            os.nice(_YIELDING)
        worker = Worker(settings["output"])
        while (request := _receive(core)) is not None:
            # SIGALRM has no handler here, so the kernel ends the process, even inside a native call.
            signal.setitimer(signal.ITIMER_REAL, request["seconds"] + _LATER)
            answer = worker.answer(request)
            signal.setitimer(signal.ITIMER_REAL, 0)
            core.sendall(answer)
            # Python returns little memory to the system. Without this, one large template would leave no room for the
            # next.
            if worker.out_of_memory or _resident() > settings["memory"] // 2:
                return  # the core starts a new worker, whose memory is small again


class Worker:
    """Answers requests about the templates that the core has sent.

    Each method `_NAME` answers requests whose member "ask" is NAME.
    """

    def __init__(self, max_output: int) -> None:
        """`max_output` is how many bytes a template may write."""
        self._max_output = max_output
        self._sources: dict[str, JSON] = {}
        self._chat_template = lru_cache(CACHED_TEMPLATES)(self._compiled)
        self._parsed = lru_cache(CACHED_TEMPLATES)(lambda key: parse(self._sources[key]))
        self.out_of_memory = False
        """Whether memory ran out once; the interpreter's state is then unreliable."""

    def answer(self, request: JSON) -> bytes:
        """Return the answer to a request, with its length."""
        try:
            if request.get("forget"):
                self._sources.clear()
            if "template" in request:
                self._sources[request["key"]] = request["template"]
            # Safe although it looks up a method by name: the request comes from the core, never from a template.
            asked: Callable[[JSON], JSON] = getattr(self, "_" + request["ask"])
            return wire.pack({"answer": asked(request)})
        except _TooLongError:
            return wire.pack({"exceeded": "output"})
        except TemplateRefusedError as error:
            # The text of an error can be as long as the template likes, and an answer has a bounded length.
            return wire.pack({"refused": str(error)[: wire.SLACK // 8]})
        except TemplateError as error:
            return wire.pack({"failed": str(error)[: wire.SLACK // 8]})
        except RecursionError:
            return wire.pack({"failed": "template: nested too deeply"})
        except MemoryError:
            self.out_of_memory = True
        except Exception as error:
            # A template may raise anything; the error belongs to its author.
            return wire.pack({"failed": f"template: {type(error).__name__}: {error}"[: wire.SLACK // 8]})
        # Outside of the handler, because there the exception still holds the frames that filled the memory.
        return wire.pack({"exceeded": "memory"})

    def _compiled(self, key: str) -> ChatTemplate:
        source, tool_source, bos, eos, adds_bos, adds_eos = self._sources[key]
        return ChatTemplate(source, bos, eos, tool_source=tool_source, adds_bos=adds_bos, adds_eos=adds_eos)

    def _checked_length(self, text: str) -> str:
        # The number of characters is compared first, so that a huge text is not encoded just to be measured.
        if len(text) > self._max_output or len(text.encode("utf-8", "surrogatepass")) > self._max_output:
            raise _TooLongError
        return text

    def _turn(self, request: JSON) -> JSON:
        """Render a conversation with a chat template; with "reads" also return how the answer begins."""
        messages, tools = wire.messages_in(request["messages"]), wire.tools_in(request["tools"])
        template, think = self._chat_template(request["key"]), wire.think_in(request["think"])
        if not request["reads"]:
            return [self._checked_length(template.render(messages, tools, think=think)), ""]
        turn = template.turn(messages, tools, think=think)
        return [self._checked_length(turn.text), self._checked_length(turn.answer_prefix)]

    def _layout(self, request: JSON) -> JSON:
        """Derive the layout of the output."""
        return wire.layout_out(self._chat_template(request["key"]).derived(tools=request["tools"]))

    def _go(self, request: JSON) -> JSON:
        """Render a conversation with a Go template."""
        messages, tools = wire.messages_in(request["messages"]), wire.tools_in(request["tools"])
        return self._checked_length(
            render_go(self._parsed(request["key"]), messages, tools, wire.think_in(request["think"]))
        )

    def _suffix(self, request: JSON) -> JSON:
        """Render the text before and after a gap."""
        prompt, suffix = request["texts"]
        return self._checked_length(
            render_suffix(self._parsed(request["key"]), prompt, suffix, wire.think_in(request["think"]))
        )

    def _facts(self, request: JSON) -> JSON:
        """Return the facts of a Go template."""
        return wire.facts_out(facts.of(self._parsed(request["key"])))


class _TooLongError(Exception):
    """A template writes more than it may."""


def _receive(core: socket.socket) -> JSON:
    """Return the next message; None once the core has closed the socket."""
    head = _exactly(core, wire.HEADER.size)
    return wire.unpack(_exactly(core, *wire.HEADER.unpack(head))) if head else None


def _exactly(core: socket.socket, size: int) -> bytearray:
    """Return `size` bytes; no bytes once the core has closed the socket."""
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        count = core.recv_into(view[got:])
        if not count:
            return bytearray()
        got += count
    return data


def _confine(memory: int) -> None:
    """Limit the resources of this process, as far as the system can."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            # No program that this process could start gains rights, setuid ones included.
            ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    bounds = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
    }
    for kind, bound in bounds.items():
        # A limit can be lowered but not raised, and a container may have set a lower one already.
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        with suppress(OSError, ValueError, OverflowError):
            resource.setrlimit(kind, (bound, bound))
    with suppress(OSError):
        # When memory runs out, the kernel should kill this process before any other one of the server.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _resident() -> int:
    """Return the resident memory of this process in bytes; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
