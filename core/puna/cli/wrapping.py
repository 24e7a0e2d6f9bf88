"""Text that comes piece by piece, broken between words at the edge of a terminal.

A word is shown as its letters come. When it meets the edge, its beginning is erased from the line and the word goes on
in the next line. Characters of two cells, as Chinese has, may be parted anywhere.
"""

from typing import Final

from wcwidth import wcwidth

_ERASE: Final = "\x1b[{}D\x1b[K"
"""Moves the cursor left by a number of cells and erases the rest of the line."""


class Wrapper:
    """Wraps one answer. width: cells of a line."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._word = ""
        self._cells = 0

    def feed(self, text: str) -> str:
        """Return the text as it is to be written."""
        return "".join(map(self._character, text))

    def _character(self, character: str) -> str:
        if character == "\n":
            self._column = 0
            self._start_word()
            return character
        cells = max(wcwidth(character), 0)
        if self._column + cells <= self._width:
            out = character
        elif character.isspace():
            self._column = 0
            self._start_word()
            return "\n"
        elif self._word and self._cells < self._column:
            out = _ERASE.format(self._cells) + "\n" + self._word + character
            self._column = self._cells
        else:
            out = "\n" + character
            self._column = 0
        self._column += cells
        if character.isspace() or cells > 1:
            self._start_word()
        else:
            self._word += character
            self._cells += cells
        return out

    def _start_word(self) -> None:
        self._word = ""
        self._cells = 0
