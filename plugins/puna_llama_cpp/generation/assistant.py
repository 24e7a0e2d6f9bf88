"""Draft tokens from an assistant: a head that reads the KV cache of its model (Gemma 4).

Theory. Like other heads (`draft_head`), an assistant takes the newest token x(n) and the model's state h(n-1) of the
token before. But it has no keys and values: its layers attend to those that the model's last layers have written for
all tokens up to n-1, in the same slot. So it knows every text at once, also one that was copied from another slot or
restored from the disk, and nothing is evaluated to catch up. Only the state of the last token must be at hand.

Nothing is written for the tokens that it drafts. To go on, it takes its own token and its own state, and stays at the
position n, as it was trained. llama.cpp looks at the cells of the model but changes none, so drafts leave no trace.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.draft_loading import OpenedDraft
from puna_llama_cpp.generation.draft_head import Head, States
from puna_llama_cpp.generation.drafter import Asked
from puna_llama_cpp.generation.ngram_index import NgramIndex


@dataclass(slots=True)
class _Newest:
    """The end of a slot's text, with the state from which a draft begins."""

    index: "weakref.ref[NgramIndex]"
    """The sequence that the slot was used for last."""
    position: int
    """That of the newest token, which has been sampled and not yet evaluated."""
    state: States
    """The model's state of the token before."""
    given: States
    """The state that goes with the next token: that one, or the assistant's own."""


class Assistant(Head):
    """Drafts tokens with an assistant of a model. Use it on the decode thread."""

    def __init__(self, draft: OpenedDraft, most: int, target: Weights, context: Context) -> None:
        """Take ownership of an opened assistant. For the arguments see `Head`."""
        super().__init__(draft, most, target, context)
        self._newest: dict[int, _Newest] = {}

    def _read(self, slot: int, index: NgramIndex, tokens: list[int], start: int, states: States) -> None:  # noqa: ARG002
        state = states[-1].copy()
        self._newest[slot] = _Newest(weakref.ref(index), start + len(states), state, state)

    def _missing(self, asked: Asked, decoding: int, step: float) -> list[int] | None:  # noqa: ARG002
        newest = self._newest.get(asked.slot)
        if newest is None or newest.index() is not asked.index or newest.position != len(asked.tokens) - 1:
            return None
        newest.given = newest.state
        return [asked.tokens[-1]]

    def _evaluate(self, tokens: Sequence[tuple[int, list[int]]], *, output: bool) -> None:
        self._batch.clear()
        self._rows = []
        for slot, each in tokens:
            newest = self._newest[slot]
            self._rows.append(self._batch.add(slot, newest.position, each, output=output))
            self._batch.states[self._batch.length - 1] = newest.given
        self._context.decode(self._batch)
        for (slot, _), row in zip(tokens, self._rows, strict=True):
            self._newest[slot].given = self._states.of_output(row).copy()
