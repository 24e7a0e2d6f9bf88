"""`python -m tools.bench.page FOLDER`: write the pages of results anew from what was measured.

`python -m tools.bench --page FOLDER` adds what it has just measured. FOLDER has a folder for each kind of processor,
with a page, pictures and results.json; a page that lists them; and a picture that sums up the newest of them.

A picture has a row of bars for each scenario. The largest median of a row has the longest bar, since scenarios differ
by a factor of a thousand.
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from tools.bench.results import LARGE_IS_GOOD, Figure, Results

from tools.bench import readme

PICTURES = (
    ("throughput", "Tokens of answers per second", ("tokens/s",)),
    ("prompts", "Tokens of prompts per second", ("prompt/s",)),
    ("inputs", "Texts embedded, or requests, per second", ("inputs/s", "requests/s")),
    ("decoding", "Decoding of one stream, as a share of what memory allows", ("of memory",)),
    ("first", "Seconds to the first token", ("first",)),
    ("gaps", "Seconds between two tokens, of which 99 % are shorter", ("gap p99",)),
)
"""Name of the file, title, and the figures that are shown."""
SUMMARY: Mapping[tuple[str, str], str] = {
    ("one", "tokens/s"): "one stream, 135M Q8_0",
    ("one 1B Q4_K", "tokens/s"): "one stream, 1B Q4_K_M",
    ("eight", "tokens/s"): "eight streams, 135M Q8_0",
    ("one published", "tokens/s"): "one stream, SmolLM2 Q4_1",
    ("prefill 1B Q4_K", "prompt/s"): "a prompt, 1B Q4_K_M",
    ("shared prefix", "tokens/s"): "prompts that begin alike",
    ("agent", "tokens/s"): "an agent that calls tools",
    ("embed lists", "inputs/s"): "embeddings, lists of 64",
}
"""The scenarios and figures of the picture that sums up, and how it names them."""
_COLOURS = ("#2563eb", "#93c5fd", "#d97706", "#059669", "#7c3aed", "#64748b", "#dc2626", "#0891b2")
_WIDTH, _LEFT, _VALUE = 760, 190, 90
_BAR, _GAP, _HEAD, _LEGEND, _LEGENDS = 16, 14, 40, 20, 4


def write(results: Results, folder: Path) -> None:
    """Write the page of a kind of processor into a folder of its own in `folder`, and the list of all pages anew."""
    own = folder / results.machine.folder
    own.mkdir(parents=True, exist_ok=True)
    results.save(own / "results.json")
    rewrite(folder)


def rewrite(folder: Path) -> Results:
    """Write all pages of a folder from their results.json, the list of them, and the picture that sums up.

    Return the newest results.
    """
    found = [(Results.load(path), path.parent) for path in folder.glob("*/results.json")]
    found.sort(key=lambda each: (each[0].date, each[1].name), reverse=True)
    for results, own in found:
        pictures = dict(_pictures(results, own))
        (own / "README.md").write_text(page(results, pictures), encoding="utf-8")
    newest = found[0][0]
    rows = [
        Figure(label, each.name, each.values)
        for (scenario, name), label in SUMMARY.items()
        for each in newest.figures
        if (each.scenario, each.name) == (scenario, name) and each.medians
    ]
    if rows:
        title = f"Tokens or inputs per second, {newest.machine.cores} cores"
        servers = [name for name in newest.servers if any(name in row.medians for row in rows)]
        (folder / "summary.svg").write_text(picture(title, rows, servers), encoding="utf-8")
    (folder / "README.md").write_text(contents(found, summary=bool(rows)), encoding="utf-8")
    return newest


def _pictures(results: Results, folder: Path) -> Iterator[tuple[str, str]]:
    """Write the pictures of a page; yield their names and titles."""
    for name, title, figures in PICTURES:
        found = [each for each in results.figures if each.name in figures and each.medians]
        if found:
            (folder / f"{name}.svg").write_text(picture(title, found, list(results.servers)), encoding="utf-8")
            yield name, title


def contents(found: Sequence[tuple[Results, Path]], *, summary: bool) -> str:
    """Return the page that lists the pages of all kinds of processors, the newest first."""
    lines = [
        "# Results",
        "",
        "`python -m tools.bench.page` writes these pages. [How it is measured](../README.md).",
        "",
    ]
    if summary:
        lines += [f"![{found[0][0].machine.processor}](summary.svg)", ""]
    lines += ["| processor | cores | vectors | memory | measured |", "|---|--:|---|--:|---|"]
    for results, folder in found:
        machine = results.machine
        memory = f"{machine.bandwidth / 1e9:.1f} GB/s" if machine.bandwidth else ""
        name = f"[{machine.processor}]({folder.name}/README.md)"
        lines.append(f"| {name} | {machine.cores} | {machine.vectors} | {memory} | {results.date} |")
    return "\n".join(lines) + "\n"


def picture(title: str, figures: Sequence[Figure], servers: Sequence[str]) -> str:
    """Return an SVG document with one row of bars for each figure."""
    parts, top = [], _HEAD + _LEGEND * (-(-len(servers) // _LEGENDS)) + 6
    for at, server in enumerate(servers):
        row, column = divmod(at, _LEGENDS)
        left, line = _LEFT + column * (_WIDTH - _LEFT) // _LEGENDS, _HEAD + _LEGEND * row
        parts.append(f'<rect x="{left}" y="{line - 2}" width="12" height="12" rx="2" fill="{_colour(at)}"/>')
        parts.append(f'<text x="{left + 18}" y="{line + 8}">{escape(server)}</text>')
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


def page(results: Results, pictures: Mapping[str, str]) -> str:
    """Return the page: the machine, the pictures by name and title, and a table of all medians and ratios."""
    machine, servers = results.machine, list(results.servers)
    first, *others = servers
    bandwidth = f"; its cores read {machine.bandwidth / 1e9:.1f} GB/s of memory" if machine.bandwidth else ""
    lines = [
        f"# {machine.processor}, {machine.cores} cores",
        "",
        f"{results.date}, {machine.system}{f', {machine.vectors}' * bool(machine.vectors)}{bandwidth}.",
        f"Up to {results.rounds} rounds, in which each server was asked in turn. Values are medians. Ratios are taken",
        "round by round: the median and the range. `python -m tools.bench.page` wrote this page.",
        "",
        *(f"- {name}: {told}" for name, told in results.servers.items()),
        "",
        *(line for name, title in pictures.items() for line in (f"![{title}]({name}.svg)", "")),
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
    """Write the pages of saved results."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.page", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--readme", type=Path, help="write the newest figures into this file, between its marks, too")
    told = parser.parse_args()
    newest = rewrite(told.folder)
    if told.readme:
        readme.update(told.readme, newest, Path(os.path.relpath(told.folder, told.readme.parent)).as_posix())


if __name__ == "__main__":
    main()
