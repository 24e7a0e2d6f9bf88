"""Go's printf: parses the format and formats each verb through `formatting`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from puna.go.template.formatting import Verb, formatted, text
from puna.go.template.values import Boxed, type_name

_FLAGS: Final = "+-# 0"
_WIDEST: Final = 1_000_000
"""Largest width and precision. fmt reports larger ones as errors."""


def sprintf(form: str, arguments: Sequence[object]) -> str:
    """Format like fmt.Sprintf, with its notices such as %!d(string=x) for wrong verbs and arguments."""
    return _Printer(form, arguments).run()


class _Printer:
    def __init__(self, form: str, arguments: Sequence[object]) -> None:
        self._form = form
        self._arguments = [a.value if isinstance(a, Boxed) else a for a in arguments]
        self._at = 0
        self._next = 0
        self._reordered = False
        self._good_index = True

    def run(self) -> str:
        out: list[str] = []
        while (percent := self._form.find("%", self._at)) >= 0:
            out.append(self._form[self._at : percent])
            self._at = percent + 1
            out.append(self._verb())
        out.append(self._form[self._at :])
        # Go does not complain about unused arguments once the format has selected one by its number.
        if not self._reordered and self._next < len(self._arguments):
            rest = [
                "<nil>" if value is None else f"{type_name(value)}={text(value)}"
                for value in self._arguments[self._next :]
            ]
            out.append(f"%!(EXTRA {', '.join(rest)})")
        return "".join(out)

    def _verb(self) -> str:
        verb = Verb()
        self._good_index = True
        while (flag := self._peek()) and flag in _FLAGS:
            verb = _flagged(verb, flag)
            self._at += 1
        self._index()
        width, complaint = self._number("WIDTH")
        # Only `*` gives a negative width. Go pads on the right then, as for the flag `-`.
        if width is not None and width < 0:
            verb, width = replace(verb, minus=True, zero=False), -width
        verb = replace(verb, width=width)
        if self._peek() == ".":
            self._at += 1
            self._index()
            precision, more = self._number("PREC")
            verb = replace(verb, precision=max(precision or 0, 0))
            complaint += more
        self._index()
        letter = self._peek()
        self._at += 1
        if not letter:
            return complaint + "%!(NOVERB)"
        # `%%` takes no argument, but fmt reads flags and widths before it.
        if letter == "%":
            return complaint + "%"
        if not self._good_index:
            return f"{complaint}%!{letter}(BADINDEX)"
        if self._next >= len(self._arguments):
            return f"{complaint}%!{letter}(MISSING)"
        value = self._arguments[self._next]
        self._next += 1
        # `%w` belongs to fmt.Errorf alone; Sprintf reports it as an unknown verb.
        if letter == "w":
            return f"{complaint}%!w({type_name(value)}={text(value)})"
        return complaint + formatted(value, replace(verb, letter=letter, zero=verb.zero and not verb.minus))

    def _peek(self) -> str:
        return self._form[self._at : self._at + 1]

    def _index(self) -> None:
        """Read `[n]`, which selects the next argument."""
        if self._peek() != "[":
            return
        self._reordered = True
        end = self._form.find("]", self._at)
        digits = self._form[self._at + 1 : end] if end > 0 else ""
        # Without a closing bracket fmt passes over the opening one only.
        self._at = end + 1 if end > 0 else self._at + 1
        if digits.isdecimal() and len(digits) < 9 and 0 < int(digits) <= len(self._arguments):
            self._next = int(digits) - 1
        else:
            self._good_index = False

    def _number(self, what: str) -> tuple[int | None, str]:
        """Read a width or precision: digits, or `*` for an argument. Return it and an error notice, if any."""
        if self._peek() == "*":
            self._at += 1
            if self._next < len(self._arguments):
                value = self._arguments[self._next]
                self._next += 1
                if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _WIDEST:
                    return value, ""
            return None, f"%!(BAD{what})"
        number: int | None = None
        # Other scripts' digits are no digits to fmt.
        while (digit := self._peek()).isdecimal() and digit.isascii():
            if number is not None and number > _WIDEST:
                self._at = len(self._form)  # fmt stops at this number
                return None, ""
            number = (number or 0) * 10 + int(digit)
            self._at += 1
        return number, ""


def _flagged(verb: Verb, flag: str) -> Verb:
    match flag:
        case "+":
            return replace(verb, plus=True)
        case "-":
            return replace(verb, minus=True)
        case "#":
            return replace(verb, sharp=True)
        case " ":
            return replace(verb, space=True)
    return replace(verb, zero=True)
