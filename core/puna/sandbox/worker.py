"""The worker's side: renders, reads and probes templates, one request after the other.

A worker limits itself before it reads the first request: memory, files, processes. A timer of the kernel's ends it when
a request takes longer than any may, so that it outlives no core that was killed; where there is a parent-death signal
it ends at once. The core kills it earlier.
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
"""Templates that a worker keeps; the core knows which it has sent."""
_PR_SET_NO_NEW_PRIVS: Final = 38
_LATER: Final = 1.0
"""Seconds behind the core's limit after which the worker ends by itself."""
_OPEN_FILES: Final = 16
_YIELDING: Final = 15
"""How much nicer to others a worker is that runs a slow template."""


def main() -> None:
    """Answer until the core goes."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=0) as core:
        core.sendall(wire.pack("ready"))
        settings = _receive(core)
        _confine(settings["memory"])
        if settings["yielding"]:
            os.nice(_YIELDING)
        worker = Worker(settings["output"])
        while (request := _receive(core)) is not None:
            signal.setitimer(signal.ITIMER_REAL, request["seconds"] + _LATER)
            answer = worker.answer(request)
            signal.setitimer(signal.ITIMER_REAL, 0)
            core.sendall(answer)
            if worker.out_of_memory or _resident() > settings["memory"] // 2:
                return  # the core starts another one, which is as small as this one was


class Worker:
    """Templates that were sent, and what can be asked of them."""

    def __init__(self, max_output: int) -> None:
        """`output`: the most characters that a template may write."""
        self._max_output = max_output
        self._sources: dict[str, JSON] = {}
        self._chat_template = lru_cache(CACHED_TEMPLATES)(self._compiled)
        self._parsed = lru_cache(CACHED_TEMPLATES)(lambda key: parse(self._sources[key]))
        self.out_of_memory = False
        """True once memory ran out, after which nothing is sure."""

    def answer(self, request: JSON) -> bytes:
        """Return the answer to a request, with its length."""
        try:
            if request.get("forget"):
                self._sources.clear()
            if "template" in request:
                self._sources[request["key"]] = request["template"]
            asked: Callable[[JSON], JSON] = getattr(self, "_" + request["ask"])
            return wire.pack({"answer": asked(request)})
        except _TooLongError:
            return wire.pack({"exceeded": "output"})
        except TemplateRefusedError as error:
            return wire.pack({"refused": str(error)[: wire.SLACK // 8]})
        except TemplateError as error:
            return wire.pack({"failed": str(error)[: wire.SLACK // 8]})
        except RecursionError:
            return wire.pack({"failed": "template: nested too deeply"})
        except MemoryError:
            self.out_of_memory = True
        except Exception as error:
            # Whatever a stranger's program runs into is its own fault.
            return wire.pack({"failed": f"template: {type(error).__name__}: {error}"[: wire.SLACK // 8]})
        return wire.pack({"exceeded": "memory"})

    def _compiled(self, key: str) -> ChatTemplate:
        source, tool_source, bos, eos, adds_bos, adds_eos = self._sources[key]
        return ChatTemplate(source, bos, eos, tool_source=tool_source, adds_bos=adds_bos, adds_eos=adds_eos)

    def _checked_length(self, text: str) -> str:
        if len(text) > self._max_output or len(text.encode("utf-8", "surrogatepass")) > self._max_output:
            raise _TooLongError
        return text

    def _turn(self, request: JSON) -> JSON:
        """Render a conversation with a chat template; tell how the model's turn opens, where answers are read."""
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
        """Tell what a Go template is for."""
        return wire.facts_out(facts.of(self._parsed(request["key"])))


class _TooLongError(Exception):
    """A template writes more than it may."""


def _receive(core: socket.socket) -> JSON:
    """Return the next message; None: the core has gone."""
    head = _exactly(core, wire.HEADER.size)
    return wire.unpack(_exactly(core, *wire.HEADER.unpack(head))) if head else None


def _exactly(core: socket.socket, size: int) -> bytearray:
    """Return this many bytes; none: the core has gone."""
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        count = core.recv_into(view[got:])
        if not count:
            return bytearray()
        got += count
    return data


def _confine(memory: int) -> None:
    """Limit what the process may take, as far as this system can."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    bounds = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
    }
    for kind, bound in bounds.items():
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        with suppress(OSError, ValueError, OverflowError):
            resource.setrlimit(kind, (bound, bound))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # of all processes of the server this one can be spared


def _resident() -> int:
    """Return the bytes of memory that the process has now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
