"""A logger for warnings that may occur many times in a short time."""

import logging
import time


class RateLimitedLogger:
    """Logs warnings of one kind, at most one in `pause` seconds, and counts those in between."""

    def __init__(self, log: logging.Logger, pause: float) -> None:
        self._log = log
        self._pause = pause
        self._next = 0.0
        self._suppressed = 0

    def warn(self, text: str, *args: object) -> None:
        """Log a warning, or count it for the next one."""
        # The wall clock may be set back, which would silence the logger for that long.
        now = time.monotonic()
        if now < self._next:
            self._suppressed += 1
            return
        more = f" ({self._suppressed} more since the last such line)" if self._suppressed else ""
        self._next, self._suppressed = now + self._pause, 0
        self._log.warning("%s%s", text % args, more)
