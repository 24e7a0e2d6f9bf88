"""The limits of transfers in tests: small parts, short waits."""

from puna.models.registry.limits import Limits

QUICK = Limits(
    smallest_part=100_000, parts=4, tick=0.01, stall=0.3, backoff=0.01, direct=0.5, save=0.02, poll=0.02, answer=20.0
)
