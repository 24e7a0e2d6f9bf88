"""Speculative decoding: draft tokens from earlier text, and from a draft model or a head if there is one.

Texts that quote, edit or extract repeat long stretches of their prompt, and agents repeat their own answers. So the
tokens that followed the last few tokens when those occurred before are likely to follow them again. The engine
evaluates these draft tokens together with the newest token, which costs less than a step for each, and then samples one
token after the other from the logits. Each draft token that equals the sampled one is accepted and saves a step. The
first that differs ends the draft, and the KV cache is truncated behind the last accepted token. The samplers see the
same logits as without drafts, to the bit where the kernels compute them, so the text is the same.

Two texts are searched: that of the sequence itself, prompt and answer, and the recent answers to requests with the same
cache salt (`answer_history`). Of all places at which the last tokens occurred before, those count where the most tokens
in front agree. They vote on each draft token, and the places that voted for another token drop out. A text that repeats
an earlier one often leaves it for a few tokens: a call of the same tool with another argument. So where no place is
found, the last token is looked for behind the place that the text followed last. Where a constraint
leaves no choice of text, as in the names of a schema's properties, that text is drafted: the model still chooses its
tokens, so the answer is the same. `draft_policy` decides how far a draft goes. Where a draft model (`draft_model`) or a
head (`draft_head`) promises to save more, its tokens are taken instead.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from puna_llama_cpp.generation.answer_history import AnswerHistory
from puna_llama_cpp.generation.draft_head import Head
from puna_llama_cpp.generation.draft_policy import (
    AGREED,
    CONTESTED,
    FORCED,
    HISTORY,
    MATCH_LENGTHS,
    MODEL,
    MODEL_PASS,
    NO_DRAFT,
    OWN_TEXT,
    RESUMED,
    Draft,
    Learned,
    StepCosts,
)
from puna_llama_cpp.generation.drafter import Drafter
from puna_llama_cpp.generation.ngram_index import NGRAM, NgramIndex

_OWN_PLACES: Final = 4
"""Places in the sequence's own text that are compared, the latest first."""
_HISTORY_PLACES: Final = 12
"""Places in the history that are compared."""
_RESUME_TOKENS: Final = 24
"""Tokens behind the place that a text has left among which it is looked for again."""
_CONTEXT_TOKENS: Final = 32
"""Tokens in front of an answer that are kept with it, so that its beginning is found again."""
_FORCED_TEXTS: Final = 1024
"""Texts forced by constraints whose tokens are kept."""
_SALTS: Final = 256
"""Cache salts of which is kept what was learned."""
_CLASSES: Final = [
    max(number for number, length in enumerate(MATCH_LENGTHS) if length <= max(matched, NGRAM))
    for matched in range(MATCH_LENGTHS[-1] + 1)
]
"""For a number of equal tokens, the index of its class in MATCH_LENGTHS."""


@dataclass(frozen=True, slots=True)
class _Place:
    """An earlier place at which the last tokens of a sequence occurred."""

    tokens: list[int]
    next: int
    """The index of the token that followed."""
    own: bool
    """Whether the place is in the sequence's own text, which goes on with the draft itself."""

    def token(self, offset: int, drafted: list[int]) -> int:
        """Return the token that followed `offset` tokens later; below zero: there is none that could be drafted."""
        index = self.next + offset
        if index < len(self.tokens):
            return self.tokens[index]
        # Behind the last token the draft continues with itself, which follows a repetition of any period.
        return drafted[index - len(self.tokens)] if self.own else -1


class Speculator:
    """Drafts tokens for the sequences of a model. Use it on the decode thread."""

    def __init__(
        self,
        history_tokens: int,
        tokenize: Callable[[str], list[int]] = lambda _: [],
        model: Drafter | None = None,
    ) -> None:
        """Keep recent answers with so many tokens; 0: draft from a sequence's own text only.

        `tokenize` returns the tokens of a text that continues another one.
        """
        self.model = model
        self.head = model if isinstance(model, Head) else None
        self._tokenize = lru_cache(_FORCED_TEXTS)(tokenize)
        self._history = AnswerHistory(history_tokens)
        self._learned: OrderedDict[str, Learned] = OrderedDict()
        self.costs = StepCosts()

    def draft(self, index: NgramIndex, salt: str, decoding: int, limit: int, forced: bytes = b"") -> Draft:
        """Return up to `limit` tokens that may follow the tokens of an index; often none.

        `decoding`: the number of sequences that the step serves. `forced`: the text that must follow by a constraint.
        """
        index.update()
        learned = self.learned(salt)
        learned.account.earn(1 / decoding)
        if limit < 1 or len(index.tokens) < NGRAM:
            return NO_DRAFT
        matched, places = self._places(index, salt)
        source = OWN_TEXT if places and places[0].own else HISTORY
        if places:
            index.followed = places[0].tokens, places[0].next, len(index.tokens)
        elif (resumed := _resumed(index)) is not None:
            source, matched, places = RESUMED, 1, [resumed]
        # A text may end within a character.
        certain = self._tokenize(forced.decode("utf-8", "ignore")) if forced else []
        if not places and not certain:
            return NO_DRAFT
        rates = learned.rates
        row = self.costs.row_share()
        limit = min(limit, int(learned.account.steps / row))
        # In steps, and in tokens.
        duration, probability, expected = 1.0, 1.0, float(decoding)
        tokens: list[int] = []
        kinds: list[int] = []
        while len(tokens) < limit:
            if len(tokens) < len(certain):
                token, kind, share = certain[len(tokens)], FORCED, 1.0
                voters = [place for place in places if place.token(len(tokens), tokens) == token]
            elif places:
                token, voters = _vote(places, tokens)
                share = len(voters) / len(places)
                # What one place says, places that disagree, and places that agree are right to different degrees.
                length_class = _CLASSES[min(matched + len(tokens), MATCH_LENGTHS[-1])]
                kind = CONTESTED if share < 1 else (source if len(voters) == 1 else AGREED) + length_class
            else:
                break
            if token < 0:
                break
            probability *= rates[kind] * share
            if probability * duration <= row * expected and (tokens or not rates.probe(kind)):
                break
            tokens.append(token)
            kinds.append(kind)
            duration += row
            expected += probability
            places = voters
        cost, worth = len(tokens) * row, 1 / decoding
        learned.account.add(-cost)
        return Draft(tokens, kinds, cost, worth, (expected - decoding) * worth - cost)

    def observe(self, salt: str, draft: Draft, accepted: int) -> None:
        """Record how many tokens of a draft were accepted."""
        learned = self.learned(salt)
        learned.account.add(accepted * draft.worth)
        for number, kind in enumerate(draft.kinds[: accepted + 1]):
            learned.rates.observe(kind, accepted=number < accepted)
            if kind >= MODEL:
                learned.rates.observe(MODEL_PASS, accepted=number < accepted)
        if self.model is not None and draft.kinds and draft.kinds[0] >= MODEL:
            self.model.observe(draft, accepted)

    def remember(self, salt: str, tokens: list[int], generated: int) -> None:
        """Keep an answer: the last `generated` ones of these tokens."""
        if generated:
            self._history.add(salt, tokens[-generated - _CONTEXT_TOKENS :])

    def close(self) -> None:
        """Free the draft model."""
        if self.model is not None:
            self.model.close()

    def learned(self, salt: str) -> Learned:
        """Return what is known of the drafts for a cache salt."""
        learned = self._learned.get(salt)
        if learned is None:
            learned = self._learned[salt] = Learned()
            if len(self._learned) > _SALTS:
                self._learned.popitem(last=False)
        self._learned.move_to_end(salt)
        return learned

    def _places(self, index: NgramIndex, salt: str) -> tuple[int, list[_Place]]:
        """Return the places at which the most tokens agree with the last ones, the latest first, and how many agree."""
        tokens = index.tokens
        ngram = tuple(tokens[-NGRAM:])
        found = []
        if ngram in index.latest:
            found += [_Place(tokens, place, own=True) for place in index.followers(ngram, _OWN_PLACES)]
        most = len(found) + _HISTORY_PLACES
        for segment in self._history.segments(salt):
            if ngram in segment.latest:  # asked first, since it is rare
                places = segment.followers(ngram, most - len(found))
                found += [_Place(segment.tokens, place, own=False) for place in places]
        matched = NGRAM
        if not found:
            return matched, found
        # The classes suffice, so whole slices are compared and no single tokens.
        for length in MATCH_LENGTHS[1:]:
            suffix = tokens[-length:]
            longer = [place for place in found if place.tokens[max(place.next - length, 0) : place.next] == suffix]
            if not longer or len(suffix) < length:
                break
            found, matched = longer, length
        return matched, found


def _resumed(index: NgramIndex) -> _Place | None:
    """Return where the text goes on behind the place that it followed last; None: it has not come back there."""
    if index.followed is None:
        return None
    tokens, left, length = index.followed
    # The text may say in fewer or in more tokens what stood there.
    end = min(left + len(index.tokens) - length + _RESUME_TOKENS, len(tokens))
    try:
        found = tokens.index(index.tokens[-1], left, end)
    except ValueError:
        return None
    return _Place(tokens, found + 1, own=tokens is index.tokens) if found + 1 < len(tokens) else None


def _vote(places: list[_Place], drafted: list[int]) -> tuple[int, list[_Place]]:
    """Return the token that most places name, and those places."""
    votes: dict[int, list[_Place]] = {}
    for place in places:
        votes.setdefault(place.token(len(drafted), drafted), []).append(place)
    # Among equals the latest place wins, since a dictionary keeps the order in which it was filled.
    token = max(votes, key=lambda each: len(votes[each]))
    return token, votes[token]
