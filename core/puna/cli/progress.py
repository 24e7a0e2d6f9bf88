"""The display of progress: bars on a terminal, lines in a pipe, JSON for scripts."""

import json
import sys
from collections.abc import AsyncIterable
from typing import Final, Literal, Protocol

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from puna.cli import terminal
from puna_client.v1 import models_pb2

NARROW: Final = 70
"""Columns of a terminal below which a line has no bar, speed and size."""


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
    elif terminal.interactive(sys.stderr):
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
    tasks: dict[str, TaskID] = {}
    # A line that is printed meanwhile appears above the bars; but not if it goes into a file or a pipe.
    above = terminal.interactive(sys.stdout)
    with Progress(*_columns(), console=terminal.console(sys.stderr), redirect_stdout=above) as progress:
        async for each in steps:
            if not each.total_bytes:
                # The bars of earlier steps are complete.
                for task in progress.tasks:
                    progress.update(task.id, completed=task.total)
                progress.console.print(each.status, markup=False)
                continue
            # The status of a transfer changes while its digest stays, and one transfer must keep one bar.
            key = each.digest or each.status
            if key not in tasks:
                tasks[key] = progress.add_task(each.status, total=each.total_bytes)
            progress.update(tasks[key], completed=each.completed_bytes)


def _columns() -> tuple[ProgressColumn, ...]:
    """Return the parts of a bar's line: all of them, or in a narrow window those that fit."""
    front = (SpinnerColumn(terminal.spinner(sys.stderr)), TextColumn("{task.description}", markup=False))
    if terminal.width() < NARROW:
        return (*front, TaskProgressColumn(), TimeRemainingColumn(compact=True))
    return (*front, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
