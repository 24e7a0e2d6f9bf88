"""What follows the evaluation of a batch: sampling tokens, emitting events and ending sequences.

For each sequence whose tokens are all in the cache, one token is sampled from the logits of its last row, and more as
long as draft tokens are accepted. The order for one token is: log-probabilities from the unchanged logits, the
constraint's mask, the sampler chain, the output text. Where a thinking budget is spent, the next token of the closing
text takes the place of the sampled one. The matcher then learns of the token, and its process computes the next mask
while llama.cpp evaluates the token. Everything here runs on the decode thread.
"""

from puna.backend import BackendError, Prefill, PromptLogprobs
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.vocabulary import Vocabulary
from puna_llama_cpp.generation.batch_builder import BatchEntry
from puna_llama_cpp.generation.sequence import Sequence
from puna_llama_cpp.generation.slots import Slots
from puna_llama_cpp.generation.speculation import Speculator
from puna_llama_cpp.sampling.chain import SamplerChain
from puna_llama_cpp.sampling.logprobs import prompt_logprob, token_logprob
from puna_llama_cpp.step_thread import BatchedDelivery

_MASK_GRACE_SECONDS = 0.05
"""How long all sequences wait for one sequence's mask. One whose mask takes longer never makes them wait again."""


class OutputProcessor:
    """Turns evaluated batches into tokens and events."""

    def __init__(
        self,
        context: Context,
        vocabulary: Vocabulary,
        slots: Slots,
        delivery: BatchedDelivery,
        speculator: Speculator | None = None,
    ) -> None:
        """Emit events by `delivery`, and free the slots of sequences that end. The speculator learns from answers."""
        self._context, self._vocabulary = context, vocabulary
        self._slots, self._delivery, self._speculator = slots, delivery, speculator

    def release(self, sequence: Sequence) -> None:
        """Free a sequence's slot and samplers."""
        if self._speculator is not None:
            self._speculator.remember(sequence.request.cache_salt, sequence.tokens, sequence.generated)
        self._slots.release(sequence)
        if sequence.chain:
            sequence.chain.close()
            sequence.chain = None

    def finish(self, sequence: Sequence, reason: str) -> None:
        """End a sequence for a reason that Finish names."""
        self._delivery.put(sequence.results, sequence.finish(reason))
        self.release(sequence)

    def fail(self, sequences: list[Sequence], error: BackendError) -> None:
        """End all sequences of a batch that llama.cpp could not evaluate. Their caches hold nothing of use any more."""
        for sequence in sequences:
            self._delivery.put(sequence.results, error)
            sequence.evaluated = self._context.truncate(sequence.slot, 0)
            self.release(sequence)

    def draws(self, entries: list[BatchEntry]) -> int:
        """Return the `draws` of `Context.decode`, for sequences whose next tokens need nothing but their samplers."""
        address = 0
        for entry in entries:
            sequence = entry.share.key
            drawn = entry.share.completes and not entry.draft.tokens
            if drawn and sequence.chain and sequence.matcher is None and sequence.thinking is None:
                address = sequence.chain.draw(entry.row, address)
        return address

    def advance(self, entry: BatchEntry) -> None:
        """Count the tokens that were evaluated, and sample if they were all of the sequence's tokens."""
        sequence = entry.share.key
        slot, start = sequence.slot, sequence.evaluated
        self._advance(sequence, entry)
        head = self._speculator.head if self._speculator is not None else None
        if head is not None and not sequence.images and sequence.evaluated > start:
            # Those of rejected draft tokens are left out.
            states = head.model_states.rows(entry.first_row, entry.first_row + sequence.evaluated - start)
            head.read(slot, sequence.ngrams, sequence.tokens, start, states)

    def _advance(self, sequence: Sequence, entry: BatchEntry) -> None:
        if entry.share.completes and not _mask_ready(sequence):
            # Nothing was sampled, so the batch is undone for this sequence; a later step repeats it.
            sequence.evaluated = self._slots.truncate(sequence, sequence.evaluated)
            return
        self._score_prompt(entry)
        sequence.evaluated += entry.share.count
        if not entry.share.completes:
            # A recurrent model whose state was dropped evaluates its output again; clients must not see that as their
            # prompt.
            if not sequence.generating:
                self._delivery.put(sequence.results, Prefill(sequence.evaluated, len(sequence.tokens)))
        elif sequence.request.max_tokens == 0:
            self.finish(sequence, "length")
        else:
            try:
                self._sample(sequence, entry)
            except BackendError as error:
                self._delivery.put(sequence.results, error)
                self.release(sequence)

    def _score_prompt(self, entry: BatchEntry) -> None:
        """Emit the log-probabilities of the prompt tokens that follow the tokens of an entry, if they are wanted."""
        sequence = entry.share.key
        start, scores = sequence.evaluated, sequence.scores
        if not (rows := scores.rows(start, entry.share.count)):
            return
        top = sequence.request.top_logprobs or 0
        found = []
        for row in rows:
            logits = self._context.logits(entry.first_row + row)
            found.append(prompt_logprob(logits, scores.target(start + row), top, self._vocabulary))
        scores.done += len(found)
        self._delivery.put(sequence.results, PromptLogprobs(tuple(found)))

    def _sample(self, sequence: Sequence, entry: BatchEntry) -> None:
        """Sample the next token, and one more for each draft token that is accepted."""
        draft = entry.draft.tokens
        sequence.drafted += len(draft)
        sequence.unaccepted = len(draft)
        accepted, over = self._sample_drafted(sequence, entry.row, draft)
        if draft and self._speculator is not None:
            self._speculator.observe(sequence.request.cache_salt, entry.draft, accepted)
        # The rejected draft tokens stand in the cache behind the accepted ones. The end of a sequence removes them too.
        if not over:
            self._slots.reject(sequence)

    def _sample_drafted(self, sequence: Sequence, row: int, draft: list[int]) -> tuple[int, bool]:
        """Sample tokens from the rows from `row` on.

        Return how many draft tokens are accepted, and whether the sequence is over.
        """
        accepted = 0
        # A draft token's row of logits is valid only if every token before it equals the sampled one.
        while True:
            over = self._sample_one(sequence, row + accepted)
            if accepted == len(draft) or sequence.tokens[-1] != draft[accepted]:
                return accepted, over
            # The next row needs the mask that follows the token just sampled. Without it that token stays pending, and
            # the next step continues there.
            if over or not _mask_ready(sequence):
                return accepted + over, over
            accepted += 1
            sequence.accepted += 1
            sequence.unaccepted -= 1
            sequence.evaluated += 1

    def _sample_one(self, sequence: Sequence, row: int) -> bool:
        """Sample a token from a row of logits. Return whether the sequence is over."""
        # Created here, since samplers may be used and freed on the decode thread only.
        if sequence.chain is None:
            # Ids below zero stand for vectors of images, which the penalties do not know.
            prompt = [token for token in sequence.tokens[: sequence.prompt_length] if token >= 0]
            sequence.chain = SamplerChain(sequence.request.sampling, self._vocabulary, self._context.length, prompt)
        top, matcher = sequence.request.top_logprobs, sequence.matcher
        raw_logits = None
        if matcher or top is not None:
            logits = self._context.logits(row)
            if top is not None:
                # The mask is written into the logits, and log-probabilities are those of the unmasked ones.
                raw_logits = logits.copy() if matcher else logits
            if matcher:
                matcher.apply_mask(logits)
        # A thinking budget that is spent decides the token.
        forced = sequence.forced_token() if sequence.thinking is not None else None
        if forced is None:
            token = sequence.chain.sample(self._context, row)
        else:
            token = forced
            sequence.chain.accept(token)
        logprob = None
        if top is not None and raw_logits is not None:
            logprob = token_logprob(raw_logits, token, top, self._vocabulary, sequence.preserved)
        over = sequence.append(
            token,
            logprob,
            self._vocabulary,
            lambda event: self._delivery.put(sequence.results, event),
            forced=forced is not None,
        )
        full = not sequence.request.shift and sequence.evaluated + 1 >= self._context.length
        if over:
            self.release(sequence)
        elif full:
            self.finish(sequence, "length")
        elif matcher:
            # A sequence that is over needs no further mask, so its child is not asked for one.
            matcher.accept(token)
        return over or full


def _mask_ready(sequence: Sequence) -> bool:
    """Wait a moment for the mask of a constrained sequence. Return whether sampling may go on; note a late mask."""
    if sequence.matcher is None or sequence.matcher.wait_for_mask(_MASK_GRACE_SECONDS):
        return True
    sequence.matcher.mask_late = True
    return False
