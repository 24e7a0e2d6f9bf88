"""The WordPiece vocabulary of llamita-embed, and llama.cpp's tokenizer over it.

A text is lowercased and cut at white space and around punctuation. Each word becomes the longest pieces from the left:
the first begins with a mark of its own, the others continue it. Every letter and digit is a piece in both roles, so no
ASCII word is unknown.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
START = "▁"
_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")


def words(text: str) -> list[str]:
    """Cut a text into words in lower case, without accents, and single punctuation characters."""
    plain = unicodedata.normalize("NFD", text.lower())
    return _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))


def learn(texts: Iterable[str], whole: int, parts: int) -> list[str]:
    """Learn the pieces: the ``whole`` most frequent words, ``parts`` beginnings and as many continuations of all words.

    A part is worth its frequency times the letters that it saves.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words(text))
    frequent = [word for word, _ in counts.most_common(whole)]
    beginnings: Counter[str] = Counter()
    continuations: Counter[str] = Counter()
    for word, count in counts.items():
        if not word.isascii() or not word.isalpha():
            continue
        for size in range(2, 6):
            if len(word) > size:
                beginnings[word[:size]] += count * (size - 1)
            for start in range(1, len(word) - size + 1):
                continuations[word[start : start + size]] += count * (size - 1)
    alphabet = string.ascii_lowercase + string.digits
    pairs = [f"{number:02}" for number in range(100)]
    listed = [
        *SPECIAL,
        *(START + each for each in (*alphabet, *string.punctuation)),
        *alphabet,
        *(START + pair for pair in pairs),
        *pairs,
        *(START + word for word in frequent),
        *(START + part for part, _ in beginnings.most_common(parts)),
        *(part for part, _ in continuations.most_common(parts)),
    ]
    return list(dict.fromkeys(listed))


class WordPieces:
    """The pieces with their ids."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = tuple(pieces)
        self._ids = {piece: index for index, piece in enumerate(pieces)}
        self._longest = max(map(len, pieces))

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text between CLS and SEP."""
        return [CLS, *(each for word in words(text) for each in self._word(word)), SEP]

    def _word(self, word: str) -> list[int]:
        marked, out, at = START + word, list[int](), 0
        while at < len(marked):
            for end in range(min(len(marked), at + self._longest), at, -1):
                found = self._ids.get(marked[at:end])
                if found is not None:
                    out.append(found)
                    at = end
                    break
            else:
                return [UNK]
        return out
