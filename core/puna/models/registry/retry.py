"""The rule of retries: how often, and after which delay."""

import asyncio
import logging

from puna.models.registry.failures import ReferralError, RegistryError
from puna.models.registry.limits import Limits

log = logging.getLogger(__name__)


class Tries:
    """Counts consecutive failures."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._failed = 0

    def reset(self) -> None:
        """Reset the count, since bytes arrive."""
        self._failed = 0

    async def another(self, error: RegistryError, gained: int = 0) -> bool:
        """Count a failure, and wait before the next attempt. Return False if there must be none.

        An attempt that brought enough bytes resets the count. A ReferralError is raised, since a retry does not
        help.
        """
        if isinstance(error, ReferralError):
            raise error
        # An attempt that brought enough bytes is no consecutive failure: this is the first one again.
        self._failed = 1 if gained >= self._limits.progress else self._failed + 1
        if self._failed >= self._limits.tries:
            return False
        # The registry may ask for a longer wait, but not for any length.
        seconds = max(self._limits.backoff * 2 ** (self._failed - 1), min(error.wait, self._limits.longest_wait))
        log.info("trying again in %.1f s: %s", seconds, error)
        await asyncio.sleep(seconds)
        return True
