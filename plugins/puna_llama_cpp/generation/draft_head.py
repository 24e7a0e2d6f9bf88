"""Draft tokens from a head: a layer that was trained to name the token after the next one (MTP, EAGLE-3).

Theory. A model makes a hidden state h of each token x from all tokens up to it, and the next token from h. A head is
one more layer with attention. For position n it takes the token x(n) and the model's state h(n-1) of the token before,
and makes a state of its own, from which it names x(n+1). The model has h(n-1) as soon as it has named x(n), so the
head is one token ahead of it. To go on, the head takes its own state in the place of h(n), which the
model has not computed yet.

The head has a KV cache of its own, with the same slots. Its cell n holds what it made of x(n) and h(n-1). A cell that
was made from the head's own state is a guess and is removed after the draft: the cache holds only tokens that the model
has evaluated, with the model's states. So nothing has to be undone when draft tokens are rejected.

The engine hands over the states of all tokens that stay in the model's cache, in the order in which they are evaluated
(`read`). They wait here until the next draft, whose first pass evaluates them in front of the newest token. A pass
takes as long for several tokens as for one. Where too many wait, as those of a prompt do, they are evaluated at once,
but only while drafts have saved more than that cost; otherwise the head forgets the sequence and begins anew behind it.

A cache may begin in the middle of a text. Tokens that the model did not evaluate in this slot have no states: those
that were copied from another slot or restored from the disk. The head then knows less than it was trained with, its
tokens are accepted less often, and `draft_policy` sees that. Where a prompt shares a part of what is in its slot, the
cells of that part stay. One cell has a state of zeros then, that of the first token that is not shared, since the state
of the token before is gone. The first token of a text has no token before it: MTP gives it zeros too, and EAGLE-3
leaves it out.

EAGLE-3 is a file of its own that reads what three layers of the model were given. An encoder makes one state of these
three before anything else is done with them. llama.cpp numbers a cell by the token of its state, one lower than here;
only distances count. Of a batch with fewer outputs than tokens llama.cpp hands out the wrong rows of such a head, so
all tokens of a draft's batch get one, and few may wait for it.
"""

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from puna.backend import BackendError
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.hidden_states import HeadStates, ModelStates
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.draft_loading import OpenedDraft
from puna_llama_cpp.generation.drafter import Asked, Drafter
from puna_llama_cpp.generation.ngram_index import NgramIndex

WAITING_TOKENS: Final = 15
"""Tokens of a sequence that may wait for the next draft. With the newest, those of four sequences fit any batch."""
_WAITING_OUTPUTS: Final = 7
"""The same where they get outputs, so that those of four sequences are no more than any context has."""

States = NDArray[np.float32]
"""Hidden states, one in each row."""


@dataclass(slots=True)
class _Text:
    """The text of one slot as the head has read it: consecutive tokens from a position on, with the model's states."""

    index: "weakref.ref[NgramIndex]"
    """The sequence that the slot was used for last."""
    start: int
    """The position of the first token."""
    last: States
    """The model's state of the token before the next one; zeros if it is unknown."""
    tokens: list[int] = field(default_factory=list)
    cells: int = 0
    """How many of the tokens are in the KV cache. The others wait."""
    waiting: list[States] = field(default_factory=list)
    """The states that go with the waiting tokens."""
    drafted: int = 0
    """Cells of the KV cache behind those: guesses of the last draft."""
    own: States | None = None
    """The head's own state of the last drafted token."""

    @property
    def end(self) -> int:
        """The position of the next token."""
        return self.start + len(self.tokens)


class Head(Drafter):
    """Drafts tokens with the head of a model. Use it on the decode thread."""

    timed_tokens = 8

    def __init__(self, draft: OpenedDraft, most: int, target: Weights, context: Context) -> None:
        """Take ownership of an opened head. Draft at most `most` tokens for a sequence in a step.

        `target`: the model that verifies the tokens, with its context.
        """
        super().__init__(draft.context, most, target.vocabulary, 1 / (target.layers + 1))
        self._opened = draft
        self._states = HeadStates(draft.context, draft.weights or target)
        self.model_states = ModelStates(context, target, draft.layers or ())
        """Where the states come from that `read` takes."""
        self._batch = Batch(draft.context.batch_size, state_width=self._states.width)
        self._texts: dict[int, _Text] = {}
        self._fuses = bool(draft.layers)
        self._most_waiting = _WAITING_OUTPUTS if self._fuses else WAITING_TOKENS
        self._step = 0.0
        """The duration of a step when the last draft was asked for."""

    def read(self, slot: int, index: NgramIndex, tokens: list[int], start: int, states: States) -> None:
        """Take the hidden states of a sequence's tokens from `start` on, which the model's cache holds now.

        `tokens`: all of the sequence, without images. `index`: as long as it is the same one, tokens were only
        appended.
        """
        if self._failed or not len(states):
            return
        try:
            self._read(slot, index, tokens, start, self._states.fuse(states) if self._fuses else states)
        except BackendError as error:
            self._fail(error)

    def _read(self, slot: int, index: NgramIndex, tokens: list[int], start: int, states: States) -> None:
        text = self._texts.get(slot)
        end = start + len(states)
        if text is None or not self._goes_on(slot, text, index, tokens, start):
            self._context.truncate(slot, 0)
            # A text that begins in the middle begins with the first token that has a state before it.
            left_out = start > 0 or self._fuses
            text = self._texts[slot] = _Text(weakref.ref(index), start + left_out, np.zeros_like(states[0]))
            given = np.vstack((text.last, states[:-1]))[left_out:]
        else:
            given = np.vstack((text.last, states[:-1]))
        text.index = weakref.ref(index)
        text.tokens += tokens[text.end : end]
        text.waiting.append(given)
        text.last = states[-1].copy()
        if len(text.tokens) - text.cells > self._most_waiting:
            self._evaluate_waiting(slot, text)

    def close(self) -> None:
        """Free the context, and the weights if they are the head's own."""
        self._opened.close()

    def _missing(self, asked: Asked, decoding: int, step: float) -> list[int] | None:  # noqa: ARG002
        self._step = step
        text = self._texts.get(asked.slot)
        # The newest token has been sampled from the state of the last one that was read.
        if text is None or text.index() is not asked.index or text.end != len(asked.tokens) - 1:
            return None
        self._forget_guesses(asked.slot, text)
        return [*text.tokens[text.cells :], asked.tokens[-1]]

    def _evaluate(self, tokens: Sequence[tuple[int, list[int]]], *, output: bool) -> None:
        self._batch.clear()
        self._rows = []
        for slot, each in tokens:
            text = self._texts[slot]
            position = text.start + text.cells + text.drafted
            self._rows.append(self._batch.add(slot, position, each, output=output, all_outputs=self._fuses))
            given = np.vstack((*text.waiting, text.last)) if text.own is None else text.own
            self._batch.states[self._batch.length - len(each) : self._batch.length] = given[-len(each) :]
        self._decode()
        for (slot, _), row in zip(tokens, self._rows, strict=True):
            text = self._texts[slot]
            text.cells, text.waiting = len(text.tokens), []
            text.drafted += 1
            text.own = self._states.of_output(row)[None].copy()

    def _evaluate_waiting(self, slot: int, text: _Text) -> None:
        """Evaluate the tokens of a slot that wait, or forget the text if that has not paid lately."""
        if self._balance <= 0:
            self._context.truncate(slot, 0)
            text.start, text.tokens, text.cells, text.drafted = text.end, [], 0, 0
            text.waiting, text.own = [], None
            return
        self._forget_guesses(slot, text)
        began = time.perf_counter()
        waiting = np.vstack(text.waiting)
        for done in range(0, len(waiting), self._context.batch_size):
            part = waiting[done : done + self._context.batch_size]
            self._batch.clear()
            tokens = text.tokens[text.cells : text.cells + len(part)]
            self._batch.add(slot, text.start + text.cells, tokens, output=False)
            self._batch.states[: len(part)] = part
            self._decode()
            text.cells += len(part)
        text.waiting = []
        if self._step:
            self._balance -= (time.perf_counter() - began) / self._step

    def _goes_on(self, slot: int, text: _Text, index: NgramIndex, tokens: list[int], start: int) -> bool:
        """Cut a text behind what it shares with a sequence. Return whether its next token is that at `start` then."""
        if text.index() is index:
            return text.end == start
        kept = start - text.start
        if not 0 < kept <= len(text.tokens) or text.tokens[:kept] != tokens[text.start : start]:
            return False
        if kept < len(text.tokens):
            self._forget_guesses(slot, text)
            if kept < text.cells:
                self._context.truncate(slot, start)
            text.waiting = [np.vstack(text.waiting)[: kept - text.cells]] if kept > text.cells else []
            del text.tokens[kept:]
            text.cells = min(text.cells, kept)
            text.last = np.zeros_like(text.last)
        return True

    def _forget_guesses(self, slot: int, text: _Text) -> None:
        if text.drafted:
            self._context.truncate(slot, text.start + text.cells)
        text.drafted, text.own = 0, None

    def _decode(self) -> None:
        try:
            self._context.decode(self._batch)
        except BackendError:
            self._texts.clear()
            raise
