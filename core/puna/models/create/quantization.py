"""The types that a model may be quantized to."""

from typing import Final

from puna.errors import CreateFailedError

UNQUANTIZED: Final = frozenset(("F32", "F16", "BF16"))
_SUPPORTED: Final = "F32, F16, Q4_K_S, Q4_K_M, Q8_0"  # Ollama's; it also takes BF16
_FURTHER: Final = (
    "Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q5_K_S Q5_K_M Q6_K "
    "IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4_MOE Q1_0"
)
# Types of few bits, which llama.cpp quantizes only with an importance matrix.
_GUIDED: Final = frozenset(["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"])
_SHORT: Final = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
_TYPES: Final = frozenset((*_SUPPORTED.split(", "), "BF16", *_FURTHER.split()))


def types() -> list[str]:
    """Return the names of the types that need no importance matrix."""
    return sorted(_TYPES | _SHORT.keys())


def check(text: str) -> None:
    """Raise CreateFailedError for an unknown type. The text lists all known types."""
    if text.upper() not in _TYPES | _GUIDED | _SHORT.keys():
        raise CreateFailedError(f"unknown quantization type {text!r}; known types are {', '.join(types())}")


def named(text: str) -> str:
    """Return the canonical name of a type. Raises CreateFailedError."""
    upper = text.upper()
    name = _SHORT.get(upper, upper)
    if name in _GUIDED:
        raise CreateFailedError(f"quantization type {name} needs an importance matrix, which cannot be given here")
    if name not in _TYPES:
        raise CreateFailedError(f"unsupported quantization type {upper} - supported types are {_SUPPORTED}")
    return name
