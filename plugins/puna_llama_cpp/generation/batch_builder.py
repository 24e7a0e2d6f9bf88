"""Builds the token batch of one step: scheduled tokens, draft tokens and padding, in the order of the slots.

llama.cpp evaluates sequences with contiguous ids in one pass over the weights. The batch is therefore sorted by slot,
and a gap of one or two idle slots gets one padding token for each, which is removed from the cache after the step.
"""

from dataclasses import dataclass, field

from puna_ggml_kernels.loader import SHORTEST_PREFILL, TILED_PREFILL_ROWS
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.binding.context import MIN_OUTPUTS, Context
from puna_llama_cpp.generation.schedule import BatchShare
from puna_llama_cpp.generation.sequence import Sequence
from puna_llama_cpp.generation.slots import Slots

_PADDING_TOKEN = 0


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One sequence's part of a batch."""

    share: BatchShare[Sequence]
    row: int
    """The row of logits of the share's last token. Those of draft tokens follow it."""
    draft: list[int] = field(default_factory=list)
    """Draft tokens that are evaluated behind the share's tokens."""

    @property
    def first_row(self) -> int:
        """The row of the share's first token."""
        return self.row - self.share.count + 1


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """A batch that is ready to be decoded."""

    batch: Batch
    entries: list[BatchEntry]
    padding: dict[int, int]
    """Padding tokens: the position of each by its slot."""
    decoding: int
    """The number of decoding sequences."""
    prompt_tokens: int
    tiled_from: int
    """Rows of one sequence from which attention is computed as in tiled prefill."""

    @property
    def has_draft(self) -> bool:
        """Whether any sequence has draft tokens."""
        return any(entry.draft for entry in self.entries)


class BatchBuilder:
    """Fills one batch again and again, on the decode thread."""

    def __init__(self, context: Context, slots: Slots) -> None:
        """Allocate a batch as large as the context takes."""
        self._context, self._slots = context, slots
        self._batch = Batch(context.batch_size)

    def build(self, shares: list[BatchShare[Sequence]], *, speculate: bool) -> TokenBatch:
        """Fill the batch with scheduled tokens, and with draft tokens if `speculate`.

        Drafts share the logits rows that the context has beyond one for each sequence. So with more than four
        sequences there are none: the machine would compute as long for a draft token as for another sequence's token.
        """
        decoding = sum(share.key.decoding for share in shares)
        # Each decoding sequence uses one row of logits for its newest token; drafts share the rest equally.
        draft_limit = (MIN_OUTPUTS - decoding) // decoding if speculate else 0
        tokens = sum(share.count for share in shares)
        by_slot = {share.key.slot: share for share in shares}
        padding = self._slots.padding(by_slot)
        # Padding only saves time, so it never takes the place of scheduled tokens.
        if tokens + len(padding) > self._context.batch_size:
            padding = {}
        self._batch.clear()
        entries = []
        for slot in sorted((*by_slot, *padding)):
            if slot in padding:
                self._batch.add(slot, padding[slot], [_PADDING_TOKEN], output=False)
            else:
                entries.append(self._add(by_slot[slot], draft_limit))
        return TokenBatch(
            self._batch, entries, padding, decoding, tokens - decoding, self._tiled_from(shares, decoding)
        )

    def _add(self, share: BatchShare[Sequence], draft_limit: int) -> BatchEntry:
        sequence = share.key
        start = sequence.evaluated
        tokens = sequence.tokens[start : start + share.count]
        draft: list[int] = []
        # The draft and the token sampled after it must fit into the context.
        if (limit := min(draft_limit, self._context.length - start - 2)) > 0:
            draft = sequence.lookup.draft(sequence.tokens, limit)
        position = sequence.images.position(start)
        last = self._batch.add(
            sequence.slot,
            position,
            tokens + draft,
            output=share.completes,
            all_outputs=bool(draft),
            outputs=sequence.scores.rows(start, share.count),
        )
        return BatchEntry(share, last - len(draft), draft)

    def _tiled_from(self, shares: list[BatchShare[Sequence]], decoding: int) -> int:
        """Return the number of rows from which attention is tiled, so that parts of prompts get the whole's bits.

        Beside decoding sequences, one row must stay the sign of a decoding sequence.
        """
        # The order of additions is set for a whole batch. One prompt that would not be tiled alone keeps all of them
        # untiled.
        prompts = [share.key for share in shares if not share.key.decoding]
        if prompts and all(sequence.in_tiled_prefill(self._context.batch_size) for sequence in prompts):
            return SHORTEST_PREFILL if decoding else 1
        return TILED_PREFILL_ROWS
