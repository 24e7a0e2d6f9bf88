"""`python -m tools.bench.page RESULTS.json FOLDER`: write a page of results with pictures.

`python -m tools.bench --page FOLDER` does the same with what it has just measured. A picture has a row of bars for each
scenario. The largest median of a row has the longest bar, since scenarios differ by a factor of a thousand.
"""

import argparse
from collections.abc import Sequence
from html import escape
from pathlib import Path

from tools.bench.results import LARGE_IS_GOOD, Figure, Results

PICTURES = (
    ("throughput", "Tokens, inputs or requests per second", ("tokens/s", "inputs/s", "requests/s")),
    ("decoding", "Decoding of one stream, as a share of what memory allows", ("of memory",)),
    ("first", "Seconds to the first token", ("first",)),
    ("gaps", "Seconds between two tokens, of which 99 % are shorter", ("gap p99",)),
)
"""Name of the file, title, and the figures that are shown."""
_COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#64748b", "#dc2626")
_WIDTH, _LEFT, _VALUE = 760, 190, 90
_BAR, _GAP, _HEAD = 16, 14, 64


def write(results: Results, folder: Path) -> None:
    """Write README.md, results.json and the pictures into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    results.save(folder / "results.json")
    pictures = []
    for name, title, figures in PICTURES:
        found = [each for each in results.figures if each.name in figures and each.medians]
        if found:
            (folder / f"{name}.svg").write_text(picture(title, found, list(results.servers)), encoding="utf-8")
            pictures.append(f"![{title}]({name}.svg)")
    (folder / "README.md").write_text(page(results, pictures), encoding="utf-8")


def picture(title: str, figures: Sequence[Figure], servers: Sequence[str]) -> str:
    """Return an SVG document with one row of bars for each figure."""
    parts, top = [], _HEAD
    for at, server in enumerate(servers):
        left = _LEFT + at * (_WIDTH - _LEFT) // len(servers)
        parts.append(f'<rect x="{left}" y="38" width="12" height="12" rx="2" fill="{_colour(at)}"/>')
        parts.append(f'<text x="{left + 18}" y="48">{escape(server)}</text>')
    for figure in figures:
        medians = figure.medians
        longest = max(medians.values()) or 1.0
        shown = [server for server in servers if server in medians]
        middle = top + len(shown) * _BAR / 2 + 4
        parts.append(f'<text x="{_LEFT - 12}" y="{middle:g}" text-anchor="end">{escape(figure.scenario)}</text>')
        for server in shown:
            width = (_WIDTH - _LEFT - _VALUE) * medians[server] / longest
            told = f"{server}, {figure.scenario}: {_number(figure, medians[server])}"
            fill = _colour(servers.index(server))
            parts.append(
                f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR - 3}" rx="2" fill="{fill}">'
                f"<title>{escape(told)}</title></rect>"
            )
            value = _number(figure, medians[server])
            parts.append(f'<text x="{_LEFT + width + 6:.1f}" y="{top + _BAR - 5}" class="value">{value}</text>')
            top += _BAR
        top += _GAP
    better = "longer bars are better" if figures[0].name in LARGE_IS_GOOD else "shorter bars are better"
    # Readers' pages are light or dark, so the picture brings a background of its own.
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13" fill="#1f2937">\n'
        "<style>.value{font-size:11px;fill:#4b5563}</style>\n"
        f'<rect width="{_WIDTH}" height="{top}" rx="8" fill="#ffffff"/>\n'
        f'<text x="16" y="24" font-size="15" font-weight="600">{escape(title)}</text>\n'
        f'<text x="{_WIDTH - 16}" y="24" text-anchor="end" class="value">{better}</text>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def page(results: Results, pictures: Sequence[str]) -> str:
    """Return the page: the machine, the pictures, and a table of all medians and ratios."""
    machine, servers = results.machine, list(results.servers)
    first, *others = servers
    bandwidth = f"; its cores read {machine.bandwidth / 1e9:.1f} GB/s of memory" if machine.bandwidth else ""
    lines = [
        f"# {machine.processor}, {machine.cores} cores",
        "",
        f"{results.date}, {machine.system}{bandwidth}.",
        f"{results.rounds} rounds, in which each server was asked in turn. Values are medians. Ratios are taken",
        "round by round: the median and the range. `python -m tools.bench.page` wrote this page.",
        "",
        *(f"- {name}: {told}" for name, told in results.servers.items()),
        "",
        *(line for each in pictures for line in (each, "")),
        "| scenario | figure | " + " | ".join([*servers, *(f"{first} ÷ {other}" for other in others)]) + " |",
        "|---|---|" + "--:|" * (len(servers) + len(others)),
    ]
    for figure in results.figures:
        medians = figure.medians
        cells = [_number(figure, medians[server]) if server in medians else "" for server in servers]
        cells += [_ratio(figure.ratios(first, other)) for other in others]
        lines.append(f"| {figure.scenario} | {figure.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _colour(at: int) -> str:
    return _COLOURS[at % len(_COLOURS)]


def _number(figure: Figure, value: float) -> str:
    return f"{value:.0%}" if figure.name == "of memory" else f"{value:.4g}"


def _ratio(ratios: Sequence[float]) -> str:
    return f"{ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios else ""


def main() -> None:
    """Write the page of saved results."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.page", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    told = parser.parse_args()
    write(Results.load(told.results), told.folder)


if __name__ == "__main__":
    main()
