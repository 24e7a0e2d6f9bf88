"""Writes the final table, and decides whether the server passed."""

import statistics
from collections.abc import Sequence

from tools.soak.held import Held
from tools.soak.work import Tally

SPARE_HANDLES = 4
"""Handles or sockets that the server may have gained at the end, since pools grow once."""
SPARE_THREADS = 8


def table(tally: Tally) -> str:
    """Write a line for each kind of request."""
    lines = [f"{'':16}{'done':>8}{'given up':>10}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}"]
    for name in sorted({*tally.done, *tally.cancelled, *tally.failed}):
        # Requests that were given up have no duration, so a kind may have none at all.
        seconds = sorted(tally.seconds.get(name, [])) or [0.0]
        p99 = seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
        lines.append(
            f"{name:16}{tally.done[name]:>8}{tally.cancelled[name]:>10}{tally.failed[name]:>8}"
            f"{statistics.median(seconds) * 1e3:>9.0f}{p99 * 1e3:>9.0f}"
        )
    lines.append(f"{'in all':16}{tally.done.total():>8}{tally.cancelled.total():>10}{tally.failed.total():>8}")
    return "\n".join(lines)


def growth(samples: Sequence[int]) -> float:
    """Return the growth of memory from the second tenth to the last, as a fraction; 0 with too few samples."""
    # The first tenth is left out: caches and pools fill in it.
    tenth = len(samples) // 10
    if not tenth:
        return 0.0
    return statistics.median(samples[-tenth:]) / statistics.median(samples[tenth : 2 * tenth]) - 1


def faults(before: Held, after: Held, samples: Sequence[int], tally: Tally, most_growth: float, left: str) -> list[str]:
    """Return the server's faults as sentences. `left`: the work that it still reports, empty if there is none."""
    found = [f"{count} times {text}" for text, count in tally.errors.most_common(5)]
    if growth(samples) > most_growth:
        found.append(f"memory grew by {growth(samples):.1%} after the first tenth")
    for name, spare in (("handles", SPARE_HANDLES), ("sockets", SPARE_HANDLES), ("threads", SPARE_THREADS)):
        if getattr(after, name) > getattr(before, name) + spare:
            found.append(f"{getattr(before, name)} {name} became {getattr(after, name)}")
    # Processes need no spare: every model is loaded before the first count.
    if after.processes != before.processes:
        found.append(f"{before.processes} processes became {after.processes}")
    if left:
        found.append(f"still at work: {left}")
    return found
