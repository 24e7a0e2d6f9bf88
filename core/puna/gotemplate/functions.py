"""The functions that templates may call."""

from typing import Final

FUNCTIONS: Final = frozenset(
    "and call html index js len not or print printf println slice urlquery eq ge gt le lt ne "
    "currentDate json toTypeScriptType yesterdayDate".split()
)
