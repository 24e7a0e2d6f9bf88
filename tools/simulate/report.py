"""The table of a comparison."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tools.simulate.cluster import Outcome


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one policy."""

    cached_share: float
    """Share of all prompt tokens that a cache gave."""
    first_median: float
    first_99: float
    """Seconds to the first token: the median, and the value below which 99 % lie."""
    goodput: float
    """Output tokens per second of the answers whose first token came in time."""
    imbalance: float
    """Longest time for which a replica computed, over the mean."""
    cold_starts: int
    replica_seconds: float


def row(outcome: Outcome, first_limit: float) -> Row:
    """Return the figures. `first_limit`: seconds within which a first token is in time."""
    firsts = sorted(job.first - job.arrived for job in outcome.jobs)
    good = sum(job.output_tokens for job in outcome.jobs if job.first - job.arrived <= first_limit)
    return Row(
        cached_share=sum(job.cached for job in outcome.jobs) / sum(job.prompt.tokens for job in outcome.jobs),
        first_median=statistics.median(firsts),
        first_99=firsts[min(int(len(firsts) * 0.99), len(firsts) - 1)],
        goodput=good / outcome.seconds,
        imbalance=max(outcome.busy) * len(outcome.busy) / max(sum(outcome.busy), 1e-9),
        cold_starts=outcome.cold_starts,
        replica_seconds=outcome.replica_seconds,
    )


def table(rows: Mapping[str, Sequence[Row]]) -> str:
    """Return the medians over the seeds, a line for each policy.

    Each line has the goodput as ratio to least-loaded routing, simulated or real as the line is, if that was run.
    """
    lines = [
        "| policy | cached | first token p50 | p99 | goodput | to least-loaded | imbalance | cold starts "
        "| replica hours |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, several in rows.items():

        def median(field: str, several: Sequence[Row] = several) -> float:
            return statistics.median(getattr(each, field) for each in several)

        spread = ""
        if base := rows.get("least-loaded" + name[name.find(",") :] if "," in name else "least-loaded"):
            pairs = zip(several, base, strict=True)
            ratios = [ours.goodput / theirs.goodput if theirs.goodput else math.inf for ours, theirs in pairs]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(
            f"| {name} | {median('cached_share'):.0%} | {median('first_median'):.2f} s | {median('first_99'):.2f} s "
            f"| {median('goodput'):.0f} tokens/s | {spread} | {median('imbalance'):.2f} | {median('cold_starts'):.0f} "
            f"| {median('replica_seconds') / 3600:.1f} |"
        )
    return "\n".join(lines)
