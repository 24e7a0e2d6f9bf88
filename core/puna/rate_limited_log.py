"""Logging of trouble that may come in crowds: one line from time to time."""

import logging
import time


class RateLimitedLogger:
    """Logs warnings of one kind, at most one in `pause` seconds."""

    def __init__(self, log: logging.Logger, pause: float) -> None:
        self._log = log
        self._pause = pause
        self._next = 0.0
        self._unsaid = 0

    def warn(self, text: str, *args: object) -> None:
        """Log a warning, or count it for the next line."""
        now = time.monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more since the last such line)" if self._unsaid else ""
        self._next, self._unsaid = now + self._pause, 0
        self._log.warning("%s%s", text % args, more)
