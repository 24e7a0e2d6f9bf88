"""A spinner for the time of waiting."""

import sys
from types import TracebackType
from typing import Any, Self

from puna.cli import terminal


class Waiting:
    """Shows a spinner on standard error until it is stopped. Shows nothing without a terminal."""

    def __init__(self, text: str = "") -> None:
        self._status: Any = None
        if terminal.interactive(sys.stderr):
            self._status = terminal.console(sys.stderr).status(text, spinner=terminal.spinner(sys.stderr))

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
