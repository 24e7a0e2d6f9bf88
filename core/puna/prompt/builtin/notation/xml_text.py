"""Reads the XML of calls, and reports errors in Go's words.

Callers cut the text into texts and tags in turn, so that only the tags that they know count as tags.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import unescape
from typing import Final

_TAG: Final = re.compile(r"<(/?)(\w+)(?:=([^>]+)|\s+name=\"([^\"]*)\")?>")
_ILLEGAL: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(slots=True)
class Element:
    """An element. Its name is written `<tag=name>` or as the attribute `name`; `text` excludes that of its children."""

    tag: str
    name: str = ""
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def named(self, tag: str) -> list["Element"]:
        """Return the children with a tag."""
        return [child for child in self.children if child.tag == tag]


def read(parts: Sequence[str], root: str) -> Element:
    """Return the first element. `parts` are texts and tags in turn, beginning with a text; `root` is its tag.

    Parts after the element do not count. Raises ValueError with Go's text.
    """
    opened: list[Element] = []
    line = 1
    for i, part in enumerate(parts):
        # Lines are counted in texts only: the tags that callers cut out hold no line ends that Go would count.
        if i % 2 == 0:
            line += part.count("\n")
            if illegal := _ILLEGAL.search(part):
                raise ValueError(_wrong(line, f"illegal character code U+{ord(illegal[0]):04X}"))
            if opened:
                # XML normalizes line ends, and Go's decoder does so too.
                opened[-1].text += part.replace("\r\n", "\n").replace("\r", "\n")
        elif match := _TAG.fullmatch(part):
            closing, tag, name, quoted = match.groups()
            if not closing:
                opened.append(_opened(opened, root, tag, name or unescape(quoted or "")))
                continue
            # The first complete element is the result. Go does not look at what follows it.
            if not opened:
                raise ValueError(_wrong(line, f"unexpected end element </{tag}>"))
            if opened[-1].tag != tag:
                raise ValueError(_wrong(line, f"element <{opened[-1].tag}> closed by </{tag}>"))
            element = opened.pop()
            if not opened:
                return element
    raise ValueError(_wrong(line, "unexpected EOF") if opened else "EOF")


def _opened(opened: Sequence[Element], root: str, tag: str, name: str) -> Element:
    element = Element(tag, name)
    if opened:
        opened[-1].children.append(element)
    elif tag != root:
        raise ValueError(f"expected element type <{root}> but have <{tag}>")
    return element


def _wrong(line: int, what: str) -> str:
    return f"XML syntax error on line {line}: {what}"
