"""Builds the sequence that a backend runs from a rendered prompt: limits, truncation by tokens, media.

Truncation keeps the first tokens (num_keep) and the last ones, so that half of the context stays free for the answer.
A prompt that cannot be longer than the context, because each byte is at most one token, is not counted. A prompt that
is long beyond all measure is tokenized only at its two ends (see `lengths`).
"""

from dataclasses import dataclass
from typing import Final

from puna.backend import Constraint, SequenceRequest, ThinkingBudget, ThinkingMarkers
from puna.errors import ContextOverflowError, EngineRefusedError
from puna.go.json import replace_lone_surrogates
from puna.options import Options
from puna.prompt.truncate import cut_tokens, kept_ends
from puna.runtime.requirements import Lease
from puna.serving.lengths import head, is_long, tail
from puna.serving.requests import RequestOptions
from puna.serving.sampling_options import sampling, token_limit
from puna.serving.sequence_runner import overflow_text

NO_MEDIA: Final = (
    '{"error":{"code":400,"message":"Multimodal data provided, but model does not support multimodal requests.",'
    '"type":"invalid_request_error"}}'
)
"""The answer of Ollama's engine; clients show it as it is."""


@dataclass(frozen=True, slots=True)
class SequenceBuilder:
    """Builds sequences for one request; it holds everything but the prompt."""

    lease: Lease
    options: Options
    request: RequestOptions
    shift: bool
    cuts: bool
    """Whether a prompt longer than the context is truncated; otherwise the backend refuses it."""
    preserved: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    """Stop strings in addition to the options' own."""
    bos: str = ""
    """The BOS text with which the renderer begins prompts; empty: that of the tokenizer."""
    thinking_budget: int | None = None
    """Largest number of tokens that the model may think; None: no limit."""
    choice: int = 0
    """Index of the answer, if the request asks for several."""

    async def sequence(
        self,
        prompt: str | tuple[int, ...],
        media: tuple[bytes, ...] = (),
        constraint: Constraint | None = None,
        markers: ThinkingMarkers | None = None,
    ) -> tuple[SequenceRequest, int]:
        """Return the sequence, and the number of prompt tokens that were cut.

        `markers`: the texts around the thinking, which the budget needs. A constraint allows no thinking.

        Raises ContextOverflowError if the prompt does not fit and may not be cut.
        """
        facts, options = self.lease.facts, self.options
        if media and not (facts.vision or facts.audio):
            raise EngineRefusedError(NO_MEDIA)
        cut = 0
        if isinstance(prompt, str):
            prompt = replace_lone_surrogates(prompt)
            # The tokenizer adds BOS again, so a renderer's own would be there twice.
            if facts.adds_bos:
                prompt = prompt.removeprefix(self.bos or facts.bos_text)
            # Only the backend can count the tokens of media, so a prompt with media is never cut here. Without a
            # tokenizer, or with a context of unknown length, the prompt is left to the backend.
            if not (facts.tokenizer and facts.context_length):
                pass
            elif is_long(prompt, facts.context_length):
                prompt, cut = await self._shortened(prompt, may_cut=self.cuts and not media)
            elif self.cuts and not media and len(prompt.encode()) >= facts.context_length:
                prompt, cut = await self._fitting(prompt)
        # Token ids come with raw prompts, whose length is the client's business.
        elif 0 < facts.context_length < len(prompt):
            raise ContextOverflowError(overflow_text(len(prompt), facts.context_length))
        return (
            SequenceRequest(
                prompt=prompt,
                media=media,
                sampling=sampling(options, self.request, self.choice),
                max_tokens=token_limit(options, facts.context_length),
                # The strings of the options come first: of two that match at one place, the first is reported.
                stop=options.stop + self.stops,
                constraint=constraint,
                top_logprobs=self.request.top_logprobs if self.request.logprobs else None,
                keep_tokens=options.num_keep,
                shift=self.shift,
                preserved_tokens=self.preserved,
                cache_salt=self.request.cache_salt,
                priority=self.request.priority,
                thinking_budget=self._budget(markers) if constraint is None else None,
            ),
            cut,
        )

    def _budget(self, markers: ThinkingMarkers | None) -> ThinkingBudget | None:
        if self.thinking_budget is None or markers is None:
            return None
        return ThinkingBudget(max_tokens=self.thinking_budget, markers=markers)

    async def _shortened(self, prompt: str, *, may_cut: bool) -> tuple[str | tuple[int, ...], int]:
        """Truncate a prompt that is too long to be tokenized whole; the number of tokens cut is an estimate."""
        facts, model = self.lease.facts, self.lease.model
        found = await head(model, prompt, facts.context_length + 1)
        if found.complete and len(found.tokens) < facts.context_length:
            return prompt, 0
        if not may_cut:
            raise ContextOverflowError(overflow_text(len(found.tokens), facts.context_length, at_least=True))
        # As in Ollama, a prompt is refused rather than truncated where the context must not be shifted.
        if not self.shift:
            raise ContextOverflowError
        # `head` leaves BOS out, and token ids go to the backend as they are.
        begin = [facts.bos_id] if facts.adds_bos else []
        first, last = kept_ends(facts.context_length, self.options.num_keep, facts.adds_bos)
        kept = [*begin, *found.tokens][:first] + await tail(model, prompt, last)
        # Extrapolated from the characters per token of the beginning.
        estimate = len(prompt) * len(found.tokens) // found.characters
        return tuple(kept), max(estimate - len(kept), 1)

    async def _fitting(self, prompt: str) -> tuple[str | tuple[int, ...], int]:
        """Cut tokens out of the middle of a prompt so that there is room for an answer."""
        facts = self.lease.facts
        # Shorter prompts need no counting: a token stands for at least one byte.
        tokens = await self.lease.model.tokenize(prompt, add_special=True, parse_special=True)
        if len(tokens) <= facts.context_length - 1:
            return prompt, 0
        if not self.shift:
            raise ContextOverflowError
        # The kept tokens are sent as ids. Their text, tokenized again, could give other tokens at the seam.
        kept = cut_tokens(tokens, facts.context_length, self.options.num_keep, facts.adds_bos)
        return tuple(kept), len(tokens) - len(kept)
