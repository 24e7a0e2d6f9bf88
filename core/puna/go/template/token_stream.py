"""A stream of tokens with lookahead and backtracking."""

from puna.go.template.lexer import Kind, Token, tokens


class TokenStream:
    """The stream. Tokens are kept once read. `depth` is the parser's level of nesting."""

    def __init__(self, text: str) -> None:
        # The lexer runs lazily, so an error of the parser before a malformed token is reported first, as in Go.
        self._source = tokens(text)
        self._seen: list[Token] = []
        self._next = 0
        self.depth = 0

    def next(self) -> Token:
        """Return the next token and advance."""
        if self._next == len(self._seen):
            # The last token is EOF or ERROR, and is returned again and again.
            self._seen.append(next(self._source, self._seen[-1] if self._seen else Token(Kind.EOF, 0, "EOF", 1)))
        self._next += 1
        return self._seen[self._next - 1]

    def mark(self) -> int:
        """Return the current position, for `back`."""
        return self._next

    def back(self, mark: int) -> None:
        """Return to a position from `mark`."""
        self._next = mark

    def peek(self) -> Token:
        """Return the next token without advancing."""
        token = self.next()
        self._next -= 1
        return token

    def next_word(self) -> Token:
        """Return the next token that is not a space and advance."""
        while (token := self.next()).kind is Kind.SPACE:
            pass
        return token

    def peek_word(self) -> Token:
        """Skip spaces and return the next token without advancing."""
        token = self.next_word()
        self._next -= 1
        return token

    @property
    def line(self) -> int:
        """The line of the last token read, which Go's errors name."""
        return self._seen[-1].line if self._seen else 0
