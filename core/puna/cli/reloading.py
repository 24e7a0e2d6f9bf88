"""Reads the configuration of a running server again, for SIGHUP and for ServerService.ReloadConfiguration."""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from puna.configuration import Adopted, ConfigurationInvalidError
from puna.settings import Settings, from_environment

if TYPE_CHECKING:
    from puna.auth.gate import Gate

log = logging.getLogger(__name__)


class Reloader:
    """Reads the configuration again, and takes over what a running server may change.

    A file with mistakes changes nothing. The whole file is read and checked before the first setting changes, and all
    of them change within one turn of the event loop.
    """

    def __init__(self, settings: Settings, gate: "Gate | None", config: Path | None) -> None:
        """`config` names the configuration file; None: the default one."""
        self._settings = settings
        self._gate = gate
        self._config = config
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.listeners: list[Callable[[], None]] = []
        """Called after settings have changed."""

    async def reload(self) -> Adopted:
        """Read the configuration again. Raises ConfigurationInvalidError, and logs its text."""
        # Of two reloads at once, the later one must win.
        async with self._lock:
            try:
                fresh = await asyncio.to_thread(from_environment, os.environ, self._config)
            except (OSError, ValueError) as error:
                log.error("the configuration was not read again: %s", error)
                raise ConfigurationInvalidError(str(error)) from error
            # The start has made these two fit the number of file descriptors, so they may differ from the file.
            fitted = {
                name: getattr(self._settings.limits, name) for name in ("max_connections", "max_grpc_connections")
            }
            found = self._settings.adopt(replace(fresh, limits=replace(fresh.limits, **fitted)))
            if self._gate is not None:
                self._gate.expose = frozenset(self._settings.expose)
            for each in self.listeners if found.changed else ():
                each()
        changed = f"changed {', '.join(found.changed)}" if found.changed else "nothing changed"
        log.info("the configuration was read again: %s", changed)
        if found.pending:
            log.warning("these settings change with the next start: %s", ", ".join(found.pending))
        return found

    def start(self) -> None:
        """Begin a reload whose outcome stands in the log alone. Must be called in the event loop."""

        async def run() -> None:
            with suppress(ConfigurationInvalidError):
                await self.reload()

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
