"""A budget for evaluating a template.

Each step is charged before it is taken, in units of about a microsecond: a node of the tree, or some characters of a
text. A run without a budget is unbounded and belongs into a process that can be killed (puna.sandbox).
"""

import math
import re
from collections.abc import Sequence
from typing import Final

from puna.go.template.values import Boxed

_COPIED: Final = 8
"""Binary logarithm of the characters that are copied or compared for one unit."""
_ESCAPED: Final = 4
"""Binary logarithm of the characters that are escaped or formatted for one unit."""
_CHEAP: Final = frozenset(("len", "index", "slice", "call", "not", "eq", "ne", "lt", "le", "gt", "ge"))
"""Functions that copy or compare texts and do not walk into other values."""
_WIDE: Final = re.compile(r"[0-9]{4}|\*")
"""A width or precision of printf by which the output may be much longer than the argument."""
_NARROW: Final = 1000
_PLAIN: Final = (str, bool, int, float, complex)


class BudgetSpentError(Exception):
    """The budget of a run is spent."""


class Budget:
    """The remaining units of a run, and the cost of printing all structured data that it can reach."""

    __slots__ = ("bulk", "left")

    def __init__(self, units: float = math.inf, bulk: int = 0) -> None:
        self.left = units
        self.bulk = bulk

    def spend(self, units: float) -> None:
        """Charge a step. Raises BudgetSpentError."""
        self.left -= units
        if self.left < 0:
            raise BudgetSpentError

    def print(self, value: object) -> None:
        """Charge the printing of a value."""
        self.spend(len(value) >> _COPIED if isinstance(value, str) else self._writing(value))

    def call(self, name: str, arguments: Sequence[object]) -> None:
        """Charge the call of a function."""
        # An unbounded run does not pay for measuring its arguments.
        if self.left == math.inf:
            return
        texts = [value.value if type(value) is Boxed else value for value in arguments]
        length = sum(len(value) for value in texts if isinstance(value, str))
        if name in _CHEAP:
            self.spend(length >> _COPIED)
            return
        copies = 1
        if name == "printf" and texts and isinstance(form := texts[0], str):
            # Such an output cannot be bounded from its arguments. The run counts as too expensive and moves to a
            # process that can be killed.
            if _WIDE.search(form):
                raise BudgetSpentError
            copies = 1 + form.count("%")  # a verb may print any argument, and any number of times
            length += _NARROW
        self.spend(copies * ((length >> _ESCAPED) + sum(map(self._writing, texts))))

    def _writing(self, value: object) -> int:
        # Measuring structured data would cost as much as printing it. `bulk` bounds the output of any part of the data.
        return 0 if value is None or isinstance(value, _PLAIN) else self.bulk
