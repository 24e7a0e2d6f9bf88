"""Figures of outcomes, and their ratios between servers, round by round."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from tools.bench.answers import Outcome


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which a share of the values lies; None for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _tokens(outcome: Outcome) -> int:
    """Return the tokens of all streams, or 0 if one of them was not counted: the sum would be too small."""
    counts = [stream.tokens for stream in outcome.streams]
    return sum(counts) if all(counts) else 0


def _decoding(outcome: Outcome) -> float | None:
    """Return tokens a second after the first one, summed over streams."""
    spans = [(stream.tokens - 1, stream.arrivals[-1] - stream.arrivals[0]) for stream in outcome.streams]
    return sum(tokens / seconds for tokens, seconds in spans) if all(t > 0 and s > 0 for t, s in spans) else None


def _first(outcome: Outcome) -> float | None:
    return percentile([stream.first for stream in outcome.streams if stream.arrivals], 0.5)


def _prompt(outcome: Outcome) -> float | None:
    """Return the tokens of prompts that were evaluated in a second, up to the first token of each answer."""
    known = [(stream.prompt_tokens, stream.first) for stream in outcome.streams if stream.arrivals]
    return sum(tokens / seconds for tokens, seconds in known) if known and all(tokens for tokens, _ in known) else None


def _gap(outcome: Outcome, share: float) -> float | None:
    return percentile([gap for stream in outcome.streams for gap in stream.gaps], share)


def _unevenness(outcome: Outcome) -> float | None:
    middle, slow = _gap(outcome, 0.5), _gap(outcome, 0.99)
    return slow / middle if middle and slow else None


FIGURES: Mapping[str, Callable[[Outcome], float | None]] = {
    "tokens/s": lambda outcome: _tokens(outcome) / outcome.seconds or None,
    "decoding/s": _decoding,
    "prompt/s": _prompt,
    "inputs/s": lambda outcome: outcome.inputs / outcome.seconds or None,
    "requests/s": lambda outcome: len(outcome.streams) / outcome.seconds or None,
    "seconds": lambda outcome: outcome.seconds,
    "first": _first,
    "gap p50": lambda outcome: _gap(outcome, 0.5),
    "gap p99": lambda outcome: _gap(outcome, 0.99),
    "longest gap": lambda outcome: _gap(outcome, 1.0),
    "gap p99/p50": _unevenness,
}
"""Each is None where a server counted nothing, or said nothing, of which it could be told."""


def _median(values: Sequence[float | None]) -> str:
    counted = [value for value in values if value is not None]
    if not counted:
        return "none counted"
    missing = f" ({len(counted)}/{len(values)})" if len(counted) < len(values) else ""
    return f"{statistics.median(counted):.4g}{missing}"


def values_of(figure: str, outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, list[float | None]]:
    """Return one figure of all servers, round by round."""
    return {name: [FIGURES[figure](each) for each in rounds] for name, rounds in outcomes.items()}


def shares_of(outcomes: Mapping[str, Sequence[Outcome]], most: float) -> dict[str, list[float | None]]:
    """Return the decoding of all servers as a share of the `most` tokens a second that memory allows."""
    decoding = values_of("decoding/s", outcomes)
    return {name: [each and each / most for each in rounds] for name, rounds in decoding.items()}


def row(figure: str, outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """Write one figure of all servers, as `line` does."""
    return line(figure, values_of(figure, outcomes))


def line(figure: str, values: Mapping[str, Sequence[float | None]]) -> str:
    """Write values of all servers: medians, then the first one's ratio to each other, with its spread."""
    medians = "".join(f"{_median(each):>14}" for each in values.values())
    first, *others = values
    ratios = []
    for other in others:
        pairs = sorted(a / b for a, b in zip(values[first], values[other], strict=True) if a is not None and b)
        told = f"{statistics.median(pairs):.2f} ({pairs[0]:.2f} to {pairs[-1]:.2f})" if pairs else "cannot be told"
        ratios.append(f"{first}/{other} {told}")
    return f"  {figure:12}{medians}   {'  '.join(ratios)}"
