"""Figures of outcomes, and their ratios between servers, round by round."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from tools.bench.work import Outcome


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _gaps(outcome: Outcome) -> list[float]:
    return [gap for stream in outcome.streams for gap in stream.gaps]


FIGURES: Mapping[str, Callable[[Outcome], float]] = {
    "tokens/s": lambda outcome: outcome.tokens / outcome.seconds,
    "inputs/s": lambda outcome: outcome.inputs / outcome.seconds,
    "seconds": lambda outcome: outcome.seconds,
    "first": lambda outcome: statistics.median(stream.first for stream in outcome.streams),
    "gap p50": lambda outcome: percentile(_gaps(outcome), 0.5),
    "gap p99": lambda outcome: percentile(_gaps(outcome), 0.99),
    "gap p99/p50": lambda outcome: percentile(_gaps(outcome), 0.99) / max(percentile(_gaps(outcome), 0.5), 1e-9),
}


def row(figure: str, outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """Write one figure of all servers: medians, then the first one's ratio to each other, with its spread."""
    values = {name: [FIGURES[figure](each) for each in rounds] for name, rounds in outcomes.items()}
    medians = "".join(f"{statistics.median(each):>14.4g}" for each in values.values())
    first, *others = values
    ratios = []
    for other in others:
        pairs = sorted(a / b for a, b in zip(values[first], values[other], strict=True) if b)
        ratios.append(
            f"{first}/{other} {statistics.median(pairs):.2f} ({pairs[0]:.2f} to {pairs[-1]:.2f})" if pairs else ""
        )
    return f"  {figure:12}{medians}   {'  '.join(ratios)}"
