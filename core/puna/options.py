"""Model options under the names that Modelfiles and the REST API use: defaults, merging and types.

The rules are Ollama's. The model's parameters override the defaults and the request's options override both, key by
key. A null counts as absent. An unknown name is ignored. An integer may be any JSON number and is cut toward zero.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from puna.errors import OptionRangeError, OptionTypeError
from puna.limits import LARGEST_INT32

log = logging.getLogger(__name__)

_SHOWN: Final = 5
"""Number of unknown options that the log names."""
_SHOWN_CHARACTERS: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Every option with its value. None means unset: the code that uses the option decides."""

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    draft_num_predict: int | None = None
    num_keep: int = 4
    seed: int = -1
    num_predict: int = -1
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    temperature: float = 0.8
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    unset: frozenset[str] = field(default=frozenset(), compare=False)
    """The names of the options that no layer sets. They hold defaults."""


# Derived from the annotations, so that an option is declared in one place.
KINDS: Final[Mapping[str, str]] = {
    each.name: "stop"
    if each.name == "stop"
    else "boolean"
    if "bool" in str(each.type)
    else "float32"
    if "float" in str(each.type)
    else "integer"
    for each in fields(Options)
    if each.name != "unset"
}
"""The type of each option by its name: "integer", "float32", "boolean" or "stop". Modelfiles and gRPC use it too."""


def merge(*layers: Mapping[str, object]) -> Options:
    """Merge maps over the defaults; later maps win. Raises OptionTypeError and OptionRangeError."""
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for layer in layers:
        for name, value in layer.items():
            if name not in KINDS:
                unknown.append(name)
            elif value is not None:
                # Each layer is checked, also where a later one overrides it.
                values[name] = _typed(name, value)
    # Names come from clients, so their number and length in the log are bounded.
    if unknown:
        names = ", ".join(repr(each[:_SHOWN_CHARACTERS]) for each in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        log.warning("ignoring unknown options: %s%s", names, more)
    return replace(Options(), **values, unset=frozenset(KINDS.keys() - values.keys()))


def _integer(name: str, value: int) -> int:
    """Return an integer. Ollama takes any; only one that no later code clamps must be in range here."""
    if name == "num_keep" and not -LARGEST_INT32 <= value <= LARGEST_INT32:
        raise OptionRangeError(name, f"between {-LARGEST_INT32} and {LARGEST_INT32}")
    return value


def _typed(name: str, value: object) -> object:
    kind = KINDS[name]
    # In Python a bool is an int; in JSON it is not a number.
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise OptionRangeError(name, "finite")
        if kind == "integer":
            # int() cuts toward zero, as Go's conversion does.
            return _integer(name, int(value))
        if kind == "float32":
            return float(value)
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "stop" and isinstance(value, list | tuple):
        if all(isinstance(each, str) for each in value):
            return tuple(value)
        raise OptionTypeError(name, "an array of strings")
    raise OptionTypeError(name, "type array" if kind == "stop" else f"type {kind}")
