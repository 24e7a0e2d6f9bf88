"""A spinner for the time of waiting."""

import sys
from types import TracebackType
from typing import Any, Self


class Waiting:
    """Shows a spinner on standard error until it is stopped. Shows nothing without a terminal."""

    def __init__(self, text: str = "") -> None:
        self._status: Any = None
        if sys.stderr.isatty():
            # rich takes long to import, and without a terminal nothing is shown.
            from rich.console import Console

            self._status = Console(stderr=True).status(text)

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Erase the spinner. Later calls have no effect."""
        if self._status is not None:
            self._status.stop()
            self._status = None
