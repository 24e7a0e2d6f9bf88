"""How many replicas a model has.

Theory. A model gains a replica when requests have waited for long and most slots are taken. Both conditions are needed:
requests also wait while a model is loaded, and taken slots alone are what a server is for. A model loses a replica that
has had nothing to do for long. A replica that starts takes its cold start's time to help, so no second one is asked for
until the first has had the time to start and to shorten the queue; the cost of a cold start thus limits the growth.

Nothing here waits or starts a host. tools/simulate runs the same code in virtual time.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScalingLimits:
    """The rules of one model."""

    least: int = 1
    most: int = 1
    wait_seconds: float = 2.0
    """The first request of the queue has waited at least so long."""
    taken_share: float = 0.8
    """More than this share of all slots is taken."""
    idle_seconds: float = 60.0
    """A replica that was idle for so long ends."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The load of a model's replicas at one moment."""

    replicas: int
    """Replicas that serve."""
    starting: int
    """Replicas that have not loaded the model yet."""
    slots: int
    taken_slots: int
    longest_wait: float
    """Seconds that the first request of the queues has waited; 0: none waits."""
    longest_idle: float
    """Seconds for which the longest idle replica has had nothing to do; 0: all are busy."""


def change(demand: Demand, limits: ScalingLimits) -> int:
    """Return 1 if a replica must start, -1 if the longest idle one must end, and 0 otherwise."""
    total = demand.replicas + demand.starting
    if total < limits.least:
        return 1
    # The settings of a running model may change.
    if total > limits.most:
        return -1
    crowded = demand.taken_slots > limits.taken_share * demand.slots
    if demand.longest_wait >= limits.wait_seconds and crowded:
        return int(total < limits.most and not demand.starting)
    if demand.longest_idle >= limits.idle_seconds and demand.replicas > limits.least:
        return -1
    return 0
