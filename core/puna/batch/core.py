"""Batches and files in one object, for the gRPC servicers in front of them."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from puna.batch import batch as states
from puna.batch.batch import Batch
from puna.batch.files import FileStore
from puna.batch.folder import Folder
from puna.batch.quota import Quota
from puna.batch.runner import SETTLE_SECONDS, Performer, Runner
from puna.batch.store import BatchStore
from puna.blocking import in_thread
from puna.limits import DEFAULT_LIMITS, Limits
from puna.serving.activity import Activity

log = logging.getLogger(__name__)


class Batches:
    """The batches and files of a server."""

    def __init__(
        self, root: Path | None = None, limits: Limits = DEFAULT_LIMITS, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """`root` is their folder; with None, every use raises OSError. `clock` returns nanoseconds since 1970."""
        quota = Quota(limits)
        self._folder = Folder(root, self._load)
        self.files = FileStore(self._folder, limits, quota, clock)
        self.store = BatchStore(self._folder, limits, quota, clock)
        self.limits = limits
        self._runner: Runner | None = None

    def _load(self) -> None:
        self.files.load()
        self.store.load()

    @asynccontextmanager
    async def running(
        self, activity: Activity, performer: Performer, settle_seconds: float = SETTLE_SECONDS
    ) -> AsyncGenerator[None]:
        """Run batches until the block ends. Their requests give way to the others of `activity`.

        A folder that cannot be used is logged: the server works without batches then.
        """
        # The folder is created with the first file or batch, and a server without any need not lock it.
        try:
            await in_thread(self._folder.check)
        except OSError as error:
            log.warning("batches and files cannot be used: %s", error)
        runner = self._runner = Runner(self.store, activity, performer, self._clean, settle_seconds)
        activity.background = runner
        task = asyncio.create_task(runner.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            self._runner = None
            self._folder.close()

    def _clean(self) -> None:
        self.files.expire()
        self.store.expire()

    async def check(self) -> None:
        """Raise OSError if the folder cannot be used. It need not exist."""
        await in_thread(self._folder.check)

    def changed(self) -> None:
        """Have the runner look at the batches."""
        if self._runner is not None:
            self._runner.changed()

    async def cancel(self, batch: Batch) -> None:
        """End a batch and keep its results. Has no effect on one that has ended."""
        await in_thread(self.store.end, batch, states.CANCELLED)
        self._stop(batch)

    async def delete(self, batch: Batch) -> None:
        """End a batch and remove it."""
        await in_thread(self.store.delete, batch)
        self._stop(batch)

    async def news(self, seconds: float) -> None:
        """Wait until a result is stored or a batch ends, or for some seconds."""
        await (self._runner.news(seconds) if self._runner is not None else asyncio.sleep(seconds))

    def _stop(self, batch: Batch) -> None:
        if self._runner is not None:
            self._runner.stop_batch(batch)
