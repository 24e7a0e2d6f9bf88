"""Loads the models that the configuration file wants loaded from the start of the server on."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, Self

from puna.errors import PunaError
from puna.model_settings import folded
from puna.serving.core import Serving
from puna.serving.requests import RequestOptions

log = logging.getLogger(__name__)

PRIORITY: Final = -1
"""Below that of requests, so that a client's model is loaded first."""


class Preloader:
    """Loads models one after the other in the background. Each is loaded once, also if it is unloaded later."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._asked: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Self]:
        """Load the models of the configuration while the block lasts. Its end cancels the loads that still run."""
        self.start()
        try:
            yield self
        finally:
            for each in self._tasks:
                each.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def start(self) -> None:
        """Begin to load the models of the configuration that were not loaded before. A reload calls this too."""
        wanted = [each.name for each in self._serving.settings.model_settings.tables if each.preload]
        names = [each for each in wanted if folded(each) not in self._asked]
        if names:
            self._asked |= set(map(folded, names))
            task = asyncio.create_task(self._load(names))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _load(self, names: list[str]) -> None:
        loaded = [each for each in names if await self._loaded(each)]
        gone = [each for each in loaded if not await self._serving.is_loaded(each)]
        if gone:
            log.warning("there is not enough room for all models to preload: %s had to go again", ", ".join(gone))

    async def _loaded(self, name: str) -> bool:
        try:
            await self._serving.load(name, RequestOptions(priority=PRIORITY))
        except (PunaError, OSError) as error:
            log.error("%s was not preloaded: %s", name, error)
            return False
        log.info("preloaded %s", name)
        return True
