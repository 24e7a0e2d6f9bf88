"""The paragraph of the project's README that tells what the newest results say, with their picture.

It stands between two marks, so that only its figures change when the results do.
"""

import statistics
import textwrap
from pathlib import Path

from tools.bench.results import Results

BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->\n"
_STREAMS = (("one", "for one stream"), ("eight", "for eight"))
_OWN = "puna"


def paragraph(results: Results, folder: str) -> str:
    """Return the paragraph: Puna's ratios to the other servers, where all results are, and the picture."""
    others = [name for name in results.servers if not name.startswith(_OWN)]
    told = [each for each in (_compared(results, name) for name in others) if each]
    if not told:
        raise ValueError("the newest results compare no streams of Puna with another server's")
    text = (
        f"- **It is fast on CPUs.** Tokens per second, {results.machine.cores} cores, all servers side by side with as "
        f"many threads: {'; '.join(told)}. [All results]({folder}/README.md), by `python -m tools.bench` "
        "([how](tools/bench/README.md))."
    )
    filled = textwrap.fill(text, 130, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    picture = f"  ![Puna beside other servers on {results.machine.processor}]({folder}/summary.svg)"
    return f"{filled}\n\n{picture}\n"


def _compared(results: Results, other: str) -> str:
    """Return Puna's ratios to one other server; empty if they were not asked the same."""
    ratios = []
    for scenario, words in _STREAMS:
        for figure in results.figures:
            pairs = figure.ratios(_OWN, other) if (figure.scenario, figure.name) == (scenario, "tokens/s") else []
            ratios += [f"{statistics.median(pairs):.2f} times {words}"] if pairs else []
    return f"{other}'s {' and '.join(ratios)}" if ratios else ""


def update(path: Path, results: Results, folder: str) -> None:
    """Write the paragraph anew between its marks in a file. `folder`: of the results, as seen from the file."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no place for the results: lines {BEGIN.strip()} and {END.strip()}")
    path.write_text(before + begin + paragraph(results, folder) + end + after, encoding="utf-8")
