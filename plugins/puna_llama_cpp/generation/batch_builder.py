"""Builds the token batch of one step: scheduled tokens, draft tokens and padding, in the order of the slots.

llama.cpp evaluates sequences with contiguous ids in one pass over the weights. The batch is therefore sorted by slot,
and a gap of one or two idle slots gets one padding token for each, which is removed from the cache after the step.
"""

from dataclasses import dataclass

from puna_ggml_kernels.loader import SHORTEST_PREFILL, TILED_PREFILL_ROWS
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.generation.draft_policy import NO_DRAFT, Draft
from puna_llama_cpp.generation.drafter import Asked
from puna_llama_cpp.generation.prefix_cache import MAX_PADDING_GAP
from puna_llama_cpp.generation.schedule import BatchShare
from puna_llama_cpp.generation.sequence import Sequence
from puna_llama_cpp.generation.slots import Slots
from puna_llama_cpp.generation.speculation import Speculator

_PADDING_TOKEN = 0
_MAX_DRAFTING_SEQUENCES = 4
"""Decoding sequences up to which tokens are drafted.

Beyond them, the machine computes as long for a draft token as for another sequence's token.
"""
_MAX_SHARED_ROWS = 16
"""Rows of a step with several sequences and draft tokens. A long draft of one would delay the others' next tokens."""
_MAX_ROWS = 32
"""Rows of a step with draft tokens. The kernels give so many rows the bits that they have without drafts."""
_FORCED_TEXT_SECONDS = 0.0003
"""How long a step waits for the text that a constraint forces. It usually comes within a third of this."""


# This and TokenBatch are not frozen, for the reason that `schedule.WorkItem` gives.
@dataclass(slots=True)
class BatchEntry:
    """One sequence's part of a batch."""

    share: BatchShare[Sequence]
    row: int
    """The row of logits of the share's last token. Those of draft tokens follow it."""
    draft: Draft = NO_DRAFT
    """Draft tokens that are evaluated behind the share's tokens."""

    @property
    def first_row(self) -> int:
        """The row of the share's first token."""
        return self.row - self.share.count + 1


@dataclass(slots=True)
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
    prompts: list[int]
    """The slots of prompts whose attention is tiled unless ggml's bits are wanted."""
    invariant_sequences: int
    """The number of sequences if tokens may be drafted in such steps, and no row may depend on whether they are."""
    drafted: int
    """The number of draft tokens."""
    model_seconds: float = 0.0
    """How long the draft model took."""


class BatchBuilder:
    """Fills one batch again and again, on the decode thread."""

    def __init__(self, context: Context, slots: Slots, speculator: Speculator | None = None) -> None:
        """Allocate a batch as large as the context takes. Without a speculator nothing is drafted."""
        self._context, self._slots, self._speculator = context, slots, speculator
        self._batch = Batch(context.batch_size, outputs_all=context.outputs_all)

    def build(self, shares: list[BatchShare[Sequence]], *, speculate: bool) -> TokenBatch:
        """Fill the batch with scheduled tokens, and with draft tokens if `speculate`: only decoding sequences."""
        decoding = sum(share.key.decoding for share in shares)
        draft_limit = self._draft_limit(decoding) if speculate else 0
        tokens = sum(share.count for share in shares)
        by_slot = {share.key.slot: share for share in shares}
        # One slot has no gap.
        padding = self._slots.padding(by_slot) if len(by_slot) > 1 else {}
        # Padding only saves time, so it never takes the place of scheduled tokens.
        if tokens + len(padding) > self._context.batch_size:
            padding = {}
        drafts = self._drafts(shares, decoding, draft_limit)
        model = self._speculator.model if drafts and self._speculator is not None else None
        self._batch.clear()
        entries = []
        for slot in sorted((*by_slot, *padding)):
            if slot in padding:
                self._batch.add(slot, padding[slot], [_PADDING_TOKEN], output=False)
            else:
                entries.append(self._add(by_slot[slot], drafts.get(slot, NO_DRAFT)))
        return TokenBatch(
            self._batch,
            entries,
            padding,
            decoding,
            tokens - decoding,
            self._tiled_from(shares, decoding),
            [share.key.slot for share in shares if share.key.tiled and not share.key.decoding],
            decoding if draft_limit else 0,
            sum(len(draft.tokens) for draft in drafts.values()) if drafts else 0,
            model.seconds if model is not None else 0.0,
        )

    def _draft_limit(self, decoding: int) -> int:
        """Return how many tokens may be drafted for each of so many sequences."""
        if decoding > _MAX_DRAFTING_SEQUENCES:
            return 0
        # A scored prompt beside decoding sequences is no step with drafts, so all rows of logits are free.
        rows = min(_MAX_ROWS if decoding == 1 else _MAX_SHARED_ROWS, self._context.max_outputs)
        # Padding may take the place of up to two tokens for each gap between slots.
        rows = min(rows, self._context.batch_size - MAX_PADDING_GAP * decoding)
        return min(max(rows // decoding - 1, 0), self._context.most_draft_tokens)

    def _drafts(self, shares: list[BatchShare[Sequence]], decoding: int, draft_limit: int) -> dict[int, Draft]:
        """Return the draft tokens of each slot."""
        speculator = self._speculator
        if speculator is None or not draft_limit:
            return {}
        drafts, asked = {}, []
        for share in shares:
            sequence, request = share.key, share.key.request
            # The draft and the token sampled after it must fit into the context, and into what may be generated.
            room = self._context.length - sequence.evaluated - 2
            limit = min(draft_limit, room, request.max_tokens - sequence.generated - 1)
            if limit < 1:
                continue
            forced = sequence.matcher.forced_text(_FORCED_TEXT_SECONDS) if sequence.matcher else b""
            draft = speculator.draft(sequence.ngrams, request.cache_salt, decoding, limit, forced)
            drafts[sequence.slot] = draft
            if speculator.model is not None:
                # A draft model does not see images.
                text = [token for token in sequence.tokens if token >= 0] if sequence.images else sequence.tokens
                learned = speculator.learned(request.cache_salt)
                asked.append(Asked(sequence.slot, text, sequence.ngrams, limit, learned, draft))
        if asked and speculator.model is not None:
            drafts |= speculator.model.draft(asked, decoding, speculator.costs)
        return drafts

    def _add(self, share: BatchShare[Sequence], draft: Draft) -> BatchEntry:
        sequence = share.key
        start = sequence.evaluated
        tokens = sequence.tokens[start : start + share.count]
        position = sequence.images.position(start)
        last = self._batch.add(
            sequence.slot,
            position,
            tokens + draft.tokens,
            output=share.completes or self._context.one_output,
            all_outputs=bool(draft.tokens),
            outputs=sequence.scores.rows(start, share.count),
        )
        return BatchEntry(share, last - len(draft.tokens), draft)

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
