"""The display of progress: bars on a terminal, lines in a pipe, JSON for scripts."""

import json
import sys
from collections.abc import AsyncIterable
from typing import Literal, Protocol

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
    def progress(self) -> models_pb2.JobProgress:
        """The progress."""

    def HasField(self, field_name: Literal["progress"], /) -> bool:  # noqa: N802 - protobuf's name
        """Return whether the message has progress. The last one has the model in its place."""


async def follow(steps: AsyncIterable[Step], *, as_json: bool) -> None:
    """Show progress until the steps end."""
    progress = (step.progress async for step in steps if step.HasField("progress"))
    if as_json:
        async for each in progress:
            found = {"status": each.status, "digest": each.digest, "total": each.total_bytes}
            print(json.dumps(found | {"completed": each.completed_bytes}), flush=True)
    # Progress goes to standard error, so that the output of a command can be piped.
    elif sys.stderr.isatty():
        await _bars(progress)
    else:
        await _lines(progress)


async def _lines(steps: AsyncIterable[models_pb2.JobProgress]) -> None:
    last = ""
    async for each in steps:
        done = each.total_bytes and each.completed_bytes == each.total_bytes
        # A log gets two lines for each step, its beginning and its end, instead of hundreds.
        line = f"{each.status} 100%" if done else each.status
        if line != last:
            print(line, file=sys.stderr, flush=True)
            last = line


async def _bars(steps: AsyncIterable[models_pb2.JobProgress]) -> None:
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
        async for each in steps:
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
