"""Formatting for the command line: tables, sizes, times, durations.

The formats equal those of Ollama's command line, which scripts parse.
"""

from collections.abc import Sequence
from typing import Final

from puna.go.json import percent_v

GAP: Final = "    "
SECOND: Final = 1_000_000_000
MINUTE, HOUR, DAY = 60, 3600, 86400
# A model that never expires has a time 292 years ahead. Any such time is shown as "Forever".
FOREVER_SECONDS: Final = 20 * 365 * DAY


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with left-aligned columns, four spaces apart."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    # The trailing blanks are Ollama's, too. Scripts may cut columns by position.
    lines = [GAP.join(name.ljust(width) for name, width in zip(headers, widths, strict=True)) + " "]
    lines += [_row(row, widths) for row in rows]
    return "\n".join(lines)


def section(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a section of `show`: a title, rows indented by four, an empty line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join([f"  {title}", *(GAP + _row(row, widths) for row in rows), ""])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.ljust(width) + GAP for cell, width in zip(cells, widths, strict=True))


def human_bytes(size: int) -> str:
    """Format a size in powers of 1000 with at least two digits: "744 KB", "5.5 MB"."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            value = size / unit
            if value >= 10:
                # Cut off and not rounded, as in Ollama.
                return f"{int(value)} {name}"
            return f"{value:.1f} {name}" if value != int(value) else f"{int(value)} {name}"
    return f"{size} B"


def human_parameters(count: int) -> str:
    """Format a number of parameters: "184K", "134.52M", "7B"."""
    for unit, name, decimals in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= unit:
            return f"{count // unit}{name}" if count % unit == 0 else f"{count / unit:.{decimals}f}{name}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def relative_time(seconds: float) -> str:
    """Format a time given in seconds from now; negative means past: "3 days ago", "4 minutes from now"."""
    if seconds > FOREVER_SECONDS:
        return "Forever"
    return f"{_distance(abs(seconds))} {'from now' if seconds > 0 else 'ago'}"


def _distance(seconds: float) -> str:
    # Hours are rounded to the nearest, all other units are cut off, as in Ollama's output.
    hours = int(seconds // HOUR + (seconds % HOUR >= HOUR / 2))
    days = seconds / DAY
    steps = (
        (seconds < 1, "Less than a second"),
        (int(seconds) == 1, "1 second"),
        (seconds < MINUTE, f"{int(seconds)} seconds"),
        (int(seconds // MINUTE) == 1, "About a minute"),
        (seconds < HOUR, f"{int(seconds // MINUTE)} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (days < 14, f"{int(days)} days"),
        (days < 60, f"{int(days / 7)} weeks"),
        (days < 2 * 365, f"{int(days / 30)} months"),
    )
    return next((text for fits, text in steps if fits), f"{int(days / 365)} years")


# Integers throughout: a float would show digits that were not measured.
def duration(nanoseconds: int) -> str:
    """Format a duration like Go: "512.130411ms", "685.52µs", "1m3.5s"."""
    if nanoseconds == 0:
        return "0s"
    for unit, name in ((1, "ns"), (1_000, "µs"), (1_000_000, "ms")):
        if nanoseconds < 1_000 * unit:
            return f"{_decimal(nanoseconds, unit)}{name}"
    minutes, rest = divmod(nanoseconds, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    front = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{front}{_decimal(rest, SECOND)}s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


def short_id(digest: str) -> str:
    """Return the first twelve digits of a digest, by which people tell models and files apart."""
    return digest.removeprefix("sha256:")[:12]


def metadata_value(value: object) -> str:
    """Format a metadata value. Long arrays are cut after a few items."""
    if isinstance(value, list):
        shown, width = 0, 1
        for item in value:
            wide = len(_plain(item)) + (2 if shown else 0)
            if width + wide > 10 and shown:
                break
            width, shown = width + wide, shown + 1
        text = " ".join(_plain(item) for item in value[:shown])
        return f"[{text} ...+{len(value) - shown} more]" if shown < len(value) else f"[{text}]"
    # Go prints a missing value so.
    return "<nil>" if value is None else _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return percent_v(float(value)) if isinstance(value, int | float) else str(value)
