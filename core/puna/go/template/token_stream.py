"""The tokens of a template with as much looking ahead and going back as the parser needs."""

from puna.go.template.lexer import Kind, Token, tokens


class TokenStream:
    """Tokens, read once and kept; `depth` counts how deep the parser is nested."""

    def __init__(self, text: str) -> None:
        self._source = tokens(text)
        self._seen: list[Token] = []
        self._next = 0
        self.depth = 0

    def next(self) -> Token:
        """Take the next token."""
        if self._next == len(self._seen):
            # The last token is EOF or an error, and there it stays.
            self._seen.append(next(self._source, self._seen[-1] if self._seen else Token(Kind.EOF, 0, "EOF", 1)))
        self._next += 1
        return self._seen[self._next - 1]

    def mark(self) -> int:
        """Return the place to which `back` goes."""
        return self._next

    def back(self, mark: int) -> None:
        """Go back to a marked place."""
        self._next = mark

    def peek(self) -> Token:
        """Look at the next token."""
        token = self.next()
        self._next -= 1
        return token

    def next_word(self) -> Token:
        """Take the next token that is no space."""
        while (token := self.next()).kind is Kind.SPACE:
            pass
        return token

    def peek_word(self) -> Token:
        """Skip spaces and look at what follows."""
        token = self.next_word()
        self._next -= 1
        return token

    @property
    def line(self) -> int:
        """The line of the furthest token read: where Go says an error is."""
        return self._seen[-1].line if self._seen else 0
