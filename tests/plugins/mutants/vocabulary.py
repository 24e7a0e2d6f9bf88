"""The vocabularies of the tiny model: tokens that are bytes, and tokens that are words and parts of words."""

from puna.backend import InvalidRequestError

BOS, EOS, MARK = 0, 1, 2
SPECIAL = {BOS: "<s>", EOS: "</s>", MARK: "<|tool|>"}
LEXICON = (
    *("the", "sky", "is", "blue", "because", "coffee", "balloon", "little", "tree", "hello", "naïve", "café", "🙂"),
    *("日本", "Zoë", "ñandú", "see", "all", "off", "seems", "bitter", "rubber", "yellow", "aardvark", "noon", "ooze"),
    *("is,", "it.", "and", "or", "sun", "light", "moon", "Ωmega", "happy", "apple", "kitty", "puppy", "funny", "jazz"),
)
"""The words that the model writes, each followed by a space."""


def word_tokens() -> list[bytes]:
    """Return tokens of several characters, some of which end within a character or begin within one."""
    found: dict[bytes, None] = {}
    for word in LEXICON:
        raw = f"{word} ".encode()
        middle = len(raw) // 2
        found |= {raw: None, raw[:middle]: None, raw[middle:]: None, raw[1:4]: None}
    found |= {each.encode(): None for each in ("xyl", "zebra", "quartz", "ABC", "KLM", "said", "word ", "yes")}
    return [raw for raw in found if len(raw) > 1]


class Vocabulary:
    """Tokens with their bytes. The first three are special; the next 256 are the bytes."""

    def __init__(self, kind: str) -> None:
        """`kind` is "bytes" or "words"."""
        self.raw = [text.encode() for text in SPECIAL.values()] + [bytes([byte]) for byte in range(256)]
        if kind == "words":
            self.raw += word_tokens()
        self.ids = {raw: token for token, raw in enumerate(self.raw) if token not in SPECIAL}
        self.longest = max(map(len, self.ids))

    def __len__(self) -> int:
        return len(self.raw)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Take the longest token at each place."""
        tokens = [BOS] if add_special else []
        rest = text
        while parse_special and (found := min(
            ((place, token) for token, name in SPECIAL.items() if (place := rest.find(name)) >= 0), default=None
        )):  # fmt: skip
            tokens += [*self.plain(rest[: found[0]]), found[1]]
            rest = rest[found[0] + len(SPECIAL[found[1]]) :]
        return tokens + self.plain(rest)

    def plain(self, text: str) -> list[int]:
        """Return the tokens of a text without special ones."""
        raw, tokens, place = text.encode(), [], 0
        while place < len(raw):
            length = next(length for length in range(self.longest, 0, -1) if raw[place : place + length] in self.ids)
            length = min(length, len(raw) - place)
            tokens.append(self.ids[raw[place : place + length]])
            place += length
        return tokens

    def check(self, tokens: "list[int] | tuple[int, ...]") -> None:
        """Raise InvalidRequestError for an id that does not exist."""
        if any(not 0 <= token < len(self.raw) for token in tokens):
            raise InvalidRequestError("there is no such token")

    def bytes_of(self, token: int, *, special: bool) -> bytes:
        """Return the bytes of a token."""
        return b"" if token in SPECIAL and not special else self.raw[token]
