"""Regular expressions of schemas: ECMAScript's, restated in the part of Rust's notation that llguidance follows.

Three things are changed:

- Control characters are kept out of character classes, since llguidance would allow a quote with them.
- A look-ahead at the beginning becomes a pattern of its own, which must match too.
- Nested repetition, for which the automaton grows with the product of the counts, becomes one repetition where that is
  equivalent: (a{1,50}){1,50} is a{1,2500}. Elsewhere the outer count is lowered, which allows less and never more.

An expression is parsed into alternatives, which are lists of items; an item is a text or a group with its repetition.
Syntax that the parser does not know is left to llguidance, whose error message names it.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from puna.backend import InvalidRequestError

# Backspace, tab, line feed, form feed and carriage return are not excluded: JSON has a short escape for each of them,
# so that an answer can contain them.
_CONTROL: Final = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
_CONTROL_ESCAPE: Final = re.compile(r"\\(x[01]|x7[fF]|x\{|u00[01]|u007[fF]|u\{|c|0|v)")
_PARTS: Final = re.compile(r"\\(?:x[0-9a-fA-F{]{2}|u[0-9a-fA-F{]{4}|.)|\[\^?|.", re.DOTALL)
_TOKENS: Final = re.compile(
    r"(?P<open>\((?:\?(?:[:=!]|<[=!]|P?<\w+>|[a-z]+:))?)|(?P<close>\))|(?P<or>\|)"
    r"|(?P<count>\{(?P<least>\d+)(?P<comma>,?)(?P<most>\d*)\}|[*+?])"
    r"|(?P<atom>\\p\{[^}]*\}|\\P\{[^}]*\}|\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|\[(?:\\.|[^\]\\])*\]|.)",
    re.DOTALL,
)
_MAX_COUNT_PRODUCT: Final = 2000
"""The product of nested counts that llguidance follows quickly."""
_KNOWN_PATTERNS: Final = {
    r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$": (
        r"^P(\d+W|(\d+Y(\d+M)?(\d+D)?|\d+M(\d+D)?|\d+D)(T@)?|T@)$".replace(
            "@", r"(\d+H(\d+M)?(\d+([.,]\d+)?S)?|\d+M(\d+([.,]\d+)?S)?|\d+([.,]\d+)?S)"
        )
    ),
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$": (
        r"^([A-Za-z0-9_'+\-]+\.)*[A-Za-z0-9_'+\-]*[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
    ),
}
"""Patterns that zod writes with look-around inside, and equivalents without."""


def rewrite_pattern(pattern: str) -> list[str]:
    """Return patterns that together mean the same as one.

    Raises InvalidRequestError if a part of it has no equivalent.
    """
    pattern = _without_controls(_KNOWN_PATTERNS.get(pattern, pattern))
    try:
        alternatives = _parse(pattern)
    except _UnknownSyntaxError:
        return [pattern]  # llguidance's error message names the problem
    found = []
    if len(alternatives) == 1 and alternatives[0] and alternatives[0][0].text == "^":
        # Only look-ahead directly behind ^ applies to the whole text, so that it can be a pattern of its own.
        while len(alternatives[0]) > 1 and alternatives[0][1].opening == "(?=" and alternatives[0][1].once:
            found.append(f"^(?:{_render(alternatives[0].pop(1).alternatives or [])})")
    _simplify(alternatives)
    return [*found, _render(alternatives)]


def _without_controls(pattern: str) -> str:
    """Exclude control characters from a pattern.

    Where a class contains them, llguidance allows a quote and a backslash with them.
    """
    if _CONTROL.search(pattern):
        raise InvalidRequestError('JSON schema cannot be enforced: "pattern" with a control character')
    written: list[str] = []
    within = negated = False
    for part in _PARTS.findall(pattern):
        if within and part == "]":
            if written[-1].startswith("["):
                raise InvalidRequestError('JSON schema cannot be enforced: "pattern" with an empty class')
            within = negated = False
        elif within and part.startswith("["):
            part = "\\" + part  # In ECMAScript a bracket inside a class is a character; in Rust it opens a class.
        elif part in ("[", "[^"):
            within, negated = True, part == "[^"
            part += r"\x00-\x1f" * negated
        elif not negated and _CONTROL_ESCAPE.match(part):
            raise InvalidRequestError(f'JSON schema cannot be enforced: "pattern" with the control character {part}')
        written.append(part)
    return "".join(written)


class _UnknownSyntaxError(Exception):
    """The expression has syntax that this module does not know."""


@dataclass(slots=True)
class _Item:
    """A text or a group, and how often it is repeated."""

    text: str = ""
    opening: str = ""
    alternatives: "list[list[_Item]] | None" = None
    """The alternatives of a group; None for a text."""
    min_count: int = 1
    max_count: int | None = 1
    """None: without an upper limit."""
    lazy: str = field(default="")

    @property
    def once(self) -> bool:
        return self.min_count == self.max_count == 1


def _parse(pattern: str) -> list[list[_Item]]:
    """Parse an expression into its alternatives. Raises _UnknownSyntaxError."""
    open_groups: list[tuple[str, list[list[_Item]]]] = [("", [[]])]
    # Groups are kept on a stack of our own, each with its alternatives. The first entry is the whole pattern.
    for match in _TOKENS.finditer(pattern):
        alternatives = open_groups[-1][1]
        match match.lastgroup if match.lastgroup in ("open", "close", "or", "atom") else "count":
            case "open":
                open_groups.append((match[0], [[]]))
            case "close":
                if len(open_groups) == 1:
                    raise _UnknownSyntaxError
                opening, inner = open_groups.pop()
                open_groups[-1][1][-1].append(_Item(opening=opening, alternatives=inner))
            case "or":
                alternatives.append([])
            case "atom":
                alternatives[-1].append(_Item(match[0]))
            case _:
                _repeat(alternatives[-1], match)
    if len(open_groups) > 1:
        raise _UnknownSyntaxError
    return open_groups[0][1]


def _repeat(way: list[_Item], match: re.Match[str]) -> None:
    """Apply a repetition to the last item of an alternative."""
    if not way:
        raise _UnknownSyntaxError
    item = way[-1]
    # Behind a repetition only `?` may stand, which makes it lazy.
    if not item.once or item.lazy:
        if match[0] != "?" or item.lazy:
            raise _UnknownSyntaxError
        item.lazy = "?"
    elif match["least"]:
        item.min_count = int(match["least"])
        item.max_count = int(match["most"]) if match["most"] else None if match["comma"] else item.min_count
        # {1} leaves the item as it is. The space marks it as repeated, so that a second count behind it is refused.
        item.lazy = " " if item.once else ""
    else:
        item.min_count, item.max_count = {"*": (0, None), "+": (1, None), "?": (0, 1)}[match[0]]


def _simplify(alternatives: list[list[_Item]]) -> int:
    """Flatten or lower nested repetitions. Return the largest product of counts that vary."""
    largest = 1
    for way in alternatives:
        for item in way:
            inner = 1
            if item.alternatives is not None:
                # From the inside out, since an outer count is limited by the product of the counts within it.
                inner = _simplify(item.alternatives)
                if item.opening in ("(", "(?:"):
                    inner = _flatten(item, inner)
            if item.max_count is not None and item.max_count > 1:
                if inner > 1:
                    item.max_count = max(item.min_count, min(item.max_count, max(_MAX_COUNT_PRODUCT // inner, 1)))
                if inner > 1 or item.min_count != item.max_count:
                    inner *= item.max_count
            largest = max(largest, inner)
    return largest


def _flatten(item: _Item, inner: int) -> int:
    """Make one repetition of a repetition within a repetition, if every number of times in between is possible.

    Return the count that is left inside.
    """
    assert item.alternatives is not None
    if len(item.alternatives) != 1 or len(item.alternatives[0]) != 1:
        return inner
    one = item.alternatives[0][0]
    # Groups around a single group change nothing.
    while (
        one.once
        and one.opening in ("(", "(?:")
        and one.alternatives
        and len(one.alternatives) == len(one.alternatives[0]) == 1
    ):
        one = one.alternatives[0][0]
    if one.once or one.lazy or item.lazy or one.text in ("^", "$") or (one.opening and one.opening not in ("(", "(?:")):
        return inner
    if item.min_count != item.max_count:
        # Repeating n times gives n*least to n*most. These ranges must leave no gap, or the flat repetition would allow
        # more.
        gap = (item.min_count + 1) * one.min_count - 1
        if one.max_count is not None and item.min_count * one.max_count < gap:
            return inner
    elif one.min_count != one.max_count and one.max_count is not None and item.max_count is None:
        return inner
    endless = (one.max_count is None and item.max_count != 0) or (item.max_count is None and one.max_count != 0)
    max_count = None if endless else (one.max_count or 0) * (item.max_count or 0)
    one.min_count, one.max_count, item.min_count, item.max_count = one.min_count * item.min_count, max_count, 1, 1
    return max_count if max_count is not None and max_count != one.min_count else 1


def _render(alternatives: list[list[_Item]]) -> str:
    return "|".join("".join(map(_render_item, way)) for way in alternatives)


def _render_item(item: _Item) -> str:
    text = item.text if item.alternatives is None else f"{item.opening}{_render(item.alternatives)})"
    lazy = item.lazy.strip()
    match item.min_count, item.max_count:
        case 1, 1:
            return text
        case 0, None:
            return f"{text}*{lazy}"
        case 1, None:
            return f"{text}+{lazy}"
        case 0, 1:
            return f"{text}?{lazy}"
        case min_count, max_count if min_count == max_count:
            return f"{text}{{{min_count}}}{lazy}"
        case min_count, max_count:
            return f"{text}{{{min_count},{'' if max_count is None else max_count}}}{lazy}"
