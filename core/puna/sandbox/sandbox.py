"""The sandbox as the core uses it: templates, and the workers that run them."""

import asyncio
from collections import OrderedDict
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from puna.errors import TemplateError
from puna.go.template.facts import Facts
from puna.limits import Limits
from puna.sandbox.lanes import ENDED, Lanes
from puna.sandbox.process import WorkerGoneError
from puna.sandbox.templates import REQUEST, ChatTemplate, GoTemplate

PREFETCHED: Final = 16
"""Go templates whose facts are kept here; the store keeps them for longer."""


class Sandbox:
    """Makes templates that can be run, and has the workers that run them. No worker starts before one is needed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lanes = Lanes(limits)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warm_up: asyncio.Task[None] | None = None
        self._prefetched: OrderedDict[str, Facts | TemplateError] = OrderedDict()
        """Of Go templates that are to be read, or were just now."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        await self._lanes.close()

    def go_template(self, text: str, name: str = REQUEST) -> GoTemplate:
        """Return a Go template; `name` is whose turn it is when several templates wait for a worker."""
        return GoTemplate(text, self._lanes, self._limits, name)

    def chat_template(
        self,
        source: str,
        bos_text: str,
        eos_text: str,
        *,
        tool_source: str = "",
        adds_bos: bool = False,
        adds_eos: bool = False,
    ) -> ChatTemplate:
        """Return a chat template of a model file: see puna.prompt.jinja.template.ChatTemplate."""
        return ChatTemplate(
            source,
            bos_text,
            eos_text,
            self._lanes,
            self._limits,
            tool_source=tool_source,
            adds_bos=adds_bos,
            adds_eos=adds_eos,
        )

    def warm(self) -> None:
        """Start a worker in the background, unless that was done before: it takes a fifth of a second."""
        if self._warm_up is None:
            self._warm_up = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        with suppress(WorkerGoneError):  # the first request tries again
            await self._lanes.warm()

    async def prefetch_facts(self, text: str) -> None:
        """Read a Go template, so that `read` need not block a thread. Errors are for `read` to raise."""
        template = self.go_template(text)
        if template.small or text in self._prefetched:
            return
        try:
            self._prefetched[text] = await template.facts()
        except TemplateError as error:
            self._prefetched[text] = error.with_traceback(None)
        if len(self._prefetched) > PREFETCHED:
            self._prefetched.popitem(last=False)

    def facts(self, text: str) -> Facts:
        """Return what is known of a Go template; for threads, which it blocks. Raises TemplateError."""
        template = self.go_template(text)
        if template.small or self._loop is None:
            return template.facts_here()
        known = self._prefetched.get(text)
        if isinstance(known, TemplateError):
            self._prefetched.pop(text, None)  # another time it may be within the limits
            raise known
        if known is not None:
            return known
        future = asyncio.run_coroutine_threadsafe(template.facts(), self._loop)
        try:
            return future.result()
        except asyncio.CancelledError:
            raise TemplateError(ENDED) from None
