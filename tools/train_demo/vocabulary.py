"""The vocabulary: byte-pair merges, written so that every llama.cpp since 2023 cuts a text the same way.

llama.cpp's SentencePiece tokenizer knows no words: it merges the best scored neighbours of the whole text. Old
releases (the one inside ctransformers) do not recognise special tokens in a text either. So three rules:

- Turn markers such as ``<|user|>`` are ordinary pieces with the best scores of all, together with every beginning of
  theirs, so that they always come out whole, in any release.
- A space is a token of its own, but before common lower-case pieces, and those merges come last. So a name or a value
  is cut alike after a space, after a quote and after a bracket: copying it is copying the same tokens.
- Digits never merge.
"""

import heapq
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SPACE = "▁"
UNK, BOS, EOS = 0, 1, 2
BYTES_FROM = 3
MARKERS = (
    "<|system|>", "<|tools|>", "<|user|>", "<|assistant|>", "<|think|>", "<|tool|>",
    "<think>", "</think>", "<tool_call>", "</tool_call>",
)  # fmt: skip

_MARKER = "|".join(re.escape(marker) for marker in MARKERS)
_WORD = re.compile(rf"{_MARKER}|{SPACE}?[A-Za-z]+|{SPACE}|[0-9]|\n|(?:(?!{_MARKER})[!-/:-@\[-`{{-~])+|.", re.DOTALL)


def words(text: str) -> list[str]:
    """Cuts ``text`` (spaces already written as SPACE) where no merge of a vocabulary made here reaches across."""
    return _WORD.findall(text)


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary; ``kind`` is llama.cpp's token type: 1 normal, 2 unknown, 3 control, 6 byte."""

    text: str
    score: float
    kind: int


class Vocabulary:
    """The pieces, and the tokenizer of llama.cpp over them (without its unknown-token corner cases)."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self._ids = {piece.text: index for index, piece in enumerate(self.pieces) if piece.kind == 1}
        self._cache: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` without BOS and without the space that llama.cpp puts in front of a prompt."""
        out: list[int] = []
        for word in words(text.replace(" ", SPACE)):
            ids = self._cache.get(word)
            if ids is None:
                ids = self._cache[word] = tuple(self._merge(word))
            out.extend(ids)
        return out

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids as llama.cpp makes them of a whole prompt: BOS, a space, the text."""
        return [BOS, *self.encode(" " + text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; control tokens have none."""
        raw = bytearray()
        for index in ids:
            piece = self.pieces[index]
            if piece.kind == 6:
                raw.append(int(piece.text[3:5], 16))
            elif piece.kind == 1:
                raw += piece.text.replace(SPACE, " ").encode()
        return raw.decode(errors="replace")

    def _merge(self, word: str) -> list[int]:
        """llama.cpp's ``llm_tokenizer_spm``: the best scored pair first, the leftmost of equals."""
        symbols: list[str] = list(word)
        following = [*range(1, len(symbols)), -1]
        before = [-1, *range(len(symbols) - 1)]
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                both = symbols[left] + symbols[right]
                index = self._ids.get(both)
                if index is not None:
                    heapq.heappush(queue, (-self.pieces[index].score, left, right, both))

        for left in range(len(symbols) - 1):
            offer(left, left + 1)
        while queue:
            _, left, right, both = heapq.heappop(queue)
            if not symbols[left] or not symbols[right] or symbols[left] + symbols[right] != both:
                continue
            symbols[left], symbols[right] = both, ""
            following[left] = following[right]
            if following[right] >= 0:
                before[following[right]] = left
            offer(before[left], left)
            offer(left, following[left])
        out: list[int] = []
        for symbol in filter(None, symbols):
            index = self._ids.get(symbol)
            out += [index] if index is not None else [BYTES_FROM + byte for byte in symbol.encode()]
        return out

    def save(self, path: Path) -> None:
        """Writes the pieces as JSON, one row each."""
        path.write_text(json.dumps([[p.text, p.score, p.kind] for p in self.pieces], ensure_ascii=False))

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads what ``save`` wrote."""
        return cls([Piece(text, score, kind) for text, score, kind in json.loads(path.read_text())])


def learn(texts: Iterable[str], merges: int, spaced: int) -> Vocabulary:
    """Learns ``merges`` merges inside words and punctuation, then ``spaced`` pieces with a space in front."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words(text.replace(" ", SPACE)))
    inner: Counter[str] = Counter()
    after_space: Counter[str] = Counter()
    for word, count in counts.items():
        if word not in MARKERS:
            bare = word.lstrip(SPACE)
            inner[bare] += count
            if word != bare and bare:
                after_space[bare] += count
    learned = _merges_of(inner, merges)

    chains = [marker[:end] for marker in MARKERS for end in range(2, len(marker) + 1)]
    ranked = [*dict.fromkeys(chains)]
    ranked += [piece for piece in learned if piece not in set(ranked)]
    normal = [Piece(text, -float(rank), 1) for rank, text in enumerate(ranked)]
    characters = [SPACE, *(chr(code) for code in range(0x21, 0x7F))]
    bare_vocabulary = Vocabulary([*normal, *(Piece(text, -1e6, 1) for text in characters)])
    firsts: Counter[str] = Counter()
    for word, count in after_space.items():
        first = bare_vocabulary.pieces[bare_vocabulary._merge(word)[0]].text  # noqa: SLF001
        if first.islower():
            firsts[first] += count
    ranked += [SPACE + first for first, _ in firsts.most_common(spaced)]
    ranked += characters
    return Vocabulary(
        [
            Piece("<unk>", 0.0, 2),
            Piece("<s>", 0.0, 3),
            Piece("</s>", 0.0, 3),
            *(Piece(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)),
            *(Piece(text, -float(rank), 1) for rank, text in enumerate(ranked)),
        ]
    )


def _merges_of(counts: Counter[str], merges: int) -> list[str]:
    """Plain byte-pair encoding over word counts; the pieces in the order in which they were made."""
    splits = {word: list(word) for word in counts if len(word) > 1 and word.isascii()}
    made: list[str] = []
    pairs: Counter[tuple[str, str]] = Counter()
    where: dict[tuple[str, str], set[str]] = {}
    for word, parts in splits.items():
        for pair in itertools.pairwise(parts):
            pairs[pair] += counts[word]
            where.setdefault(pair, set()).add(word)
    while len(made) < merges and pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        if pairs[best] < 2:
            break
        both = best[0] + best[1]
        if both not in made:
            made.append(both)
        for word in where.pop(best):
            parts = splits[word]
            for pair in itertools.pairwise(parts):
                pairs[pair] -= counts[word]
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == best:
                    joined[-1] = both
                else:
                    joined.append(part)
            splits[word] = joined
            for pair in itertools.pairwise(joined):
                pairs[pair] += counts[word]
                where.setdefault(pair, set()).add(word)
        del pairs[best]
    return made
