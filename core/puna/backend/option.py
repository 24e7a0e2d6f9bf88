"""The options that a backend declares."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option that one backend declares.

    The operator sets it in the configuration's table [backends.NAME]. A request may set it only with `by_request`.
    Requests come from strangers, so they must never set a path, an address, a program or a library: an option with free
    text cannot be declared with `by_request`.
    """

    name: str
    kind: type[bool] | type[int] | type[float] | type[str]
    minimum: float = -math.inf
    """The smallest value of a number."""
    maximum: float = math.inf
    """The largest value of a number."""
    choices: tuple[str, ...] = ()
    """The permitted texts; empty: any text."""
    by_request: bool = False
    """True if a request may set the option. A number then needs both bounds, and a text needs choices."""

    def __post_init__(self) -> None:
        """Raise ValueError if a request may set an unbounded option."""
        # The difference is infinite if one bound is missing, and NaN is not finite either.
        bounded = {bool: True, str: bool(self.choices)}.get(self.kind, math.isfinite(self.maximum - self.minimum))
        if self.by_request and not bounded:
            raise ValueError(f"option {self.name!r} must be bounded, since a request may set it")
