"""The sandbox as the rest of the core uses it: it makes templates and owns the workers that run them."""

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
"""Number of Go templates whose facts are kept between `prefetch_facts` and `facts`."""


class Sandbox:
    """Makes templates and owns the workers that run them. No worker starts before it is needed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lanes = Lanes(limits)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warm_up: asyncio.Task[None] | None = None
        self._prefetched: OrderedDict[str, Facts | TemplateError] = OrderedDict()
        """Results of `prefetch_facts`, by the template's text."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        await self._lanes.close()

    def go_template(self, text: str, name: str = REQUEST) -> GoTemplate:
        """Return a Go template. `name` identifies it when several templates wait for a worker."""
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
        """Return the Jinja chat template of a model file. See puna.prompt.jinja.template.ChatTemplate."""
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
        """Start a worker in the background, once, because starting one takes a fifth of a second."""
        if self._warm_up is None:
            self._warm_up = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        with suppress(WorkerGoneError):  # the first request tries again
            await self._lanes.warm()

    async def prefetch_facts(self, text: str) -> None:
        """Read the facts of a Go template, so that `facts` need not block a thread; `facts` raises the errors."""
        template = self.go_template(text)
        if template.small or text in self._prefetched:
            return
        try:
            self._prefetched[text] = await template.facts()
        except TemplateError as error:
            # The frames of the traceback would keep the whole request in memory.
            self._prefetched[text] = error.with_traceback(None)
        if len(self._prefetched) > PREFETCHED:
            self._prefetched.popitem(last=False)

    def facts(self, text: str) -> Facts:
        """Return the facts of a Go template. Blocks, so it is for threads only. Raises TemplateError."""
        template = self.go_template(text)
        # Without a loop no server runs, only a command such as `puna doctor --offline`.
        if template.small or self._loop is None:
            return template.facts_here()
        known = self._prefetched.get(text)
        if isinstance(known, TemplateError):
            # The error may be a timeout on a busy machine, so the next attempt starts from the beginning.
            self._prefetched.pop(text, None)
            raise known
        if known is not None:
            return known
        # Workers belong to the event loop, so the calling thread waits for the loop. In the loop's own thread this
        # would deadlock.
        future = asyncio.run_coroutine_threadsafe(template.facts(), self._loop)
        try:
            return future.result()
        except asyncio.CancelledError:
            raise TemplateError(ENDED) from None
