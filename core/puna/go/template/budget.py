"""How much a run of a template may do.

Every step of a run is paid for before it is taken, in units of about a microsecond: a node of the tree, some characters
of a text. A run without a budget of its own may do as much as it likes, and must be where it can be killed.
"""

import math
import re
from collections.abc import Sequence
from typing import Final

from puna.go.template.values import Boxed

_COPIED: Final = 8
"""Characters that are copied or compared for one unit, as a power of two."""
_ESCAPED: Final = 4
"""Characters that are escaped or formatted for one unit, likewise."""
_CHEAP: Final = frozenset(("len", "index", "slice", "call", "not", "eq", "ne", "lt", "le", "gt", "ge"))
"""Functions that do no more than copy or compare texts, and look at nothing inside of other values."""
_WIDE: Final = re.compile(r"[0-9]{4}|\*")
"""A width or a precision that makes a text much longer than its argument."""
_NARROW: Final = 1000
_PLAIN: Final = (str, bool, int, float, complex)


class BudgetSpentError(Exception):
    """A run has done as much as it may."""


class Budget:
    """The units that a run has left, and the cost of writing all the structured data that the run may see."""

    __slots__ = ("bulk", "left")

    def __init__(self, units: float = math.inf, bulk: int = 0) -> None:
        self.left = units
        self.bulk = bulk

    def spend(self, units: float) -> None:
        """Pay for a step. Raises BudgetSpentError."""
        self.left -= units
        if self.left < 0:
            raise BudgetSpentError

    def print(self, value: object) -> None:
        """Pay for the printing of a value."""
        self.spend(len(value) >> _COPIED if isinstance(value, str) else self._writing(value))

    def call(self, name: str, arguments: Sequence[object]) -> None:
        """Pay for the call of a function."""
        if self.left == math.inf:
            return
        texts = [value.value if type(value) is Boxed else value for value in arguments]
        length = sum(len(value) for value in texts if isinstance(value, str))
        if name in _CHEAP:
            self.spend(length >> _COPIED)
            return
        copies = 1
        if name == "printf" and texts and isinstance(form := texts[0], str):
            if _WIDE.search(form):
                raise BudgetSpentError
            copies = 1 + form.count("%")  # a verb may name any argument
            length += _NARROW
        self.spend(copies * ((length >> _ESCAPED) + sum(map(self._writing, texts))))

    def _writing(self, value: object) -> int:
        return 0 if value is None or isinstance(value, _PLAIN) else self.bulk
