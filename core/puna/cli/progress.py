"""The display of progress: bars on a terminal, lines in a pipe, JSON for scripts."""

import json
import sys
from collections.abc import AsyncIterable
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from puna_client.v1 import models_pb2


class Step(Protocol):
    """A message with a progress field, as pull, push and create stream."""

    @property
    def progress(self) -> models_pb2.TransferProgress:
        """The progress."""


async def follow(steps: AsyncIterable[Step], *, as_json: bool) -> None:
    """Show progress until the steps end."""
    if as_json:
        async for step in steps:
            each = step.progress
            found = {"status": each.status, "digest": each.digest, "total": each.total_bytes}
            print(json.dumps(found | {"completed": each.completed_bytes}), flush=True)
    # Progress goes to standard error, so that the output of a command can be piped.
    elif sys.stderr.isatty():
        await _bars(steps)
    else:
        await _lines(steps)


async def _lines(steps: AsyncIterable[Step]) -> None:
    last = ""
    async for step in steps:
        each = step.progress
        done = each.total_bytes and each.completed_bytes == each.total_bytes
        # A log gets two lines for each step, its beginning and its end, instead of hundreds.
        line = f"{each.status} 100%" if done else each.status
        if line != last:
            print(line, file=sys.stderr, flush=True)
            last = line


async def _bars(steps: AsyncIterable[Step]) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:
        async for step in steps:
            each = step.progress
            if not each.total_bytes:
                # The bars of earlier steps are complete.
                for task in progress.tasks:
                    progress.update(task.id, completed=task.total)
                progress.console.print(each.status, highlight=False)
                continue
            # The status of a transfer changes while its digest stays, and one transfer must keep one bar.
            key = each.digest or each.status
            if key not in tasks:
                tasks[key] = progress.add_task(each.status, total=each.total_bytes)
            progress.update(tasks[key], completed=each.completed_bytes)
