"""How many replicas a model may have, as settings say it: "2", or "1-4"."""

import re
from typing import Final, NamedTuple, Self

ROUTINGS: Final = ("prefix", "least-loaded", "session", "random")
"""The policies that choose a replica for a request, the default first; see puna.runtime.routing."""
_FORM: Final = re.compile(r"([1-9]\d{0,5})(?:-([1-9]\d{0,5}))?")


class ReplicaCount(NamedTuple):
    """The number of replicas that a loaded model has at least, and at most."""

    least: int = 1
    most: int = 1

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a number, or a text such as "1-4". Raises ValueError, whose text describes the values that fit."""
        match = None if isinstance(value, bool) else _FORM.fullmatch(str(value))
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise ValueError('it must be a number of replicas, such as 2, or a range, such as "1-4"')
        return cls(int(match[1]), int(match[2] or match[1]))

    def check(self, bound: float) -> None:
        """Raise ValueError if there may be more replicas than the limit `max_replicas` allows."""
        if self.most > bound:
            raise ValueError(f"it must be at most {bound} (PUNA_MAX_REPLICAS)")


ONE_REPLICA: Final = ReplicaCount()
"""The number of replicas if no setting says otherwise."""
