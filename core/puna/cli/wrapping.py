"""Word wrap for text that arrives in deltas.

Each letter is shown at once. When a word reaches the edge of the terminal, its start is erased and the word is written
anew on the next line. A line may break between any two wide characters, such as Chinese ones.
"""

from typing import Final

from wcwidth import wcwidth

_ERASE: Final = "\x1b[{}D\x1b[K"
"""Moves the cursor left by a number of cells and erases the rest of the line."""


class Wrapper:
    """The wrapper of one answer. `width`: columns of the terminal."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._word = ""
        self._cells = 0

    def feed(self, text: str) -> str:
        """Return the text to write, with line breaks and erasures."""
        return "".join(map(self._character, text))

    def _character(self, character: str) -> str:
        if character == "\n":
            self._column = 0
            self._start_word()
            return character
        # wcwidth returns -1 for control characters. They move nothing here.
        cells = max(wcwidth(character), 0)
        if self._column + cells <= self._width:
            out = character
        elif character.isspace():
            self._column = 0
            self._start_word()
            return "\n"
        # A word that fills the whole line cannot move to the next one; it is broken below.
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
