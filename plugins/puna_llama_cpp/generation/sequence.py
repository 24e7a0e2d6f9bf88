"""The state of one sequence, from its prompt to its last event.

A sequence is a list of tokens and the number of leading tokens that are in the KV cache. The rest is pending. An
aborted batch, a failed batch or a rejected draft needs no other repair than to truncate the cache and to lower that
number. Only `cancelled` is touched by other threads; everything else belongs to the decode thread.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping

from puna.backend import Finish, SequenceEvent, SequenceRequest, TextDelta, TokenLogprob
from puna.backend.text import TextAssembly
from puna.backend.thinking import ThinkingTracker
from puna_ggml_kernels.loader import TILED_PREFILL_ROWS
from puna_llama_cpp.binding.vocabulary import Vocabulary
from puna_llama_cpp.generation.ngram_index import NgramIndex
from puna_llama_cpp.generation.prompt_scores import PromptScores
from puna_llama_cpp.kv_store.cache import RestoredState
from puna_llama_cpp.sampling.chain import SamplerChain
from puna_llama_cpp.step_thread import ResultQueue
from puna_llama_cpp.structured_output.constraint import Matcher
from puna_llama_cpp.vision.image_tokens import PromptImages


class Sequence:
    """A request's tokens (prompt and output, without tokens dropped by a shift), its slot and its output text."""

    def __init__(
        self,
        request: SequenceRequest,
        tokens: list[int],
        matcher: Matcher | None,
        preserved: frozenset[int],
        images: PromptImages | None = None,
        closings: Mapping[str, list[int]] | None = None,
    ) -> None:
        """Start with the prompt's tokens, on the running event loop.

        `preserved`: special tokens that appear in the output text. `closings`: the tokens of each text that closes the
        thinking, if the request has a thinking budget.
        """
        self.request = request
        self.results: ResultQueue[SequenceEvent] = ResultQueue()
        self.restored: RestoredState | None = None
        """The state of a stored sequence that the prompt begins like, until the prompt has a slot."""
        self.scores = PromptScores(tokens, request.score_from)
        # Nothing follows the last token of a prompt that is only scored, so its own logits are not needed.
        self._unevaluated = int(request.score_from is not None and request.max_tokens == 0)
        self.tokens = tokens[: len(tokens) - self._unevaluated]
        self.matcher = matcher
        self.preserved = preserved
        self.images = images or PromptImages()
        """The images of the prompt. A sequence with images is never shifted."""
        self.cancelled = False
        self.slot = -1
        self.evaluated = 0
        """How many leading tokens are in the cache."""
        self.reusable_limit = sys.maxsize
        """How many leading tokens another sequence may reuse.

        A context shift lowers it to the tokens that it keeps: the keys and values behind them were computed from tokens
        that are gone.
        """
        self.chain: SamplerChain | None = None
        self.ngrams = NgramIndex(self.tokens)
        self.drafted = 0
        """Draft tokens that were evaluated."""
        self.accepted = 0
        """How many of them were the tokens that were sampled then."""
        self.unaccepted = 0
        """Draft tokens in the cache behind the evaluated ones, while those of a batch are compared."""
        self.initially_cached = sys.maxsize
        """How many tokens were cached when the sequence arrived: where its evaluation would begin if it were alone."""
        self._text = TextAssembly(request.stop)
        budget = request.thinking_budget
        self.thinking = ThinkingTracker(budget) if budget is not None else None
        self._closings = closings or {}
        self._forced: deque[int] = deque()
        """Tokens of the closing text that are still to be appended."""
        self._prompt_length = len(self.tokens)
        self._cached = self._unreported = 0
        """How many tokens of the prompt were cached; the same until the first delta has said so."""
        self._generated = 0
        self._logprobs: list[TokenLogprob] = []
        self._started_ns = self._first_token_ns = 0

    def start(self, slot: int, reused: int) -> None:
        """Occupy a slot whose cache holds the first `reused` tokens."""
        self.slot, self.evaluated = slot, reused
        self._cached = self._unreported = reused
        self.initially_cached = min(self.initially_cached, reused)
        # The clock starts with the slot, so time in the queue does not count as evaluation of the prompt.
        self._started_ns = time.monotonic_ns()

    @property
    def pending(self) -> int:
        """The number of tokens that are not evaluated yet."""
        return len(self.tokens) - self.evaluated

    def in_tiled_prefill(self, batch_size: int) -> bool:
        """Return whether the next token would be in a batch of tiled prefill if the sequence were alone.

        Tiled attention adds in another order than attention over few rows. A prompt that is evaluated in small parts,
        or whose beginning another sequence evaluates, must still get the bits that it would get alone.
        """
        # Alone, the prompt would be evaluated in batches of `batch_size` from `initially_cached` on. `before` is where
        # the batch with the next token would begin.
        before = (self.evaluated - self.initially_cached) // batch_size * batch_size
        return min(batch_size, self._prompt_length - self.initially_cached - before) >= TILED_PREFILL_ROWS

    @property
    def tiled(self) -> bool:
        """True if the prompt is long enough for tiled attention, where the order need not be ggml's.

        ggml tiles a prompt of so many tokens, too. The number of cached tokens, on which ggml's order depends, says
        nothing here: what other sequences did would decide about the text.
        """
        return self._prompt_length >= TILED_PREFILL_ROWS

    @property
    def prompt_length(self) -> int:
        """The number of tokens in the prompt, including any that a context shift has dropped since."""
        return self._prompt_length

    @property
    def generated(self) -> int:
        """The number of tokens that have been sampled."""
        return self._generated

    @property
    def generating(self) -> bool:
        """Whether at least one token has been sampled."""
        return self._generated > 0

    @property
    def decoding(self) -> bool:
        """Whether only the newest sampled token is pending."""
        # Without the properties above, since each step asks several times for each sequence.
        return self._generated > 0 and len(self.tokens) - self.evaluated == 1

    @property
    def reusable_length(self) -> int:
        """How many leading tokens may be taken from the cache.

        At least one token is left to evaluate, since its logits are needed to sample or score the next one.
        """
        scored = self.scores.reusable
        return max(len(self.tokens) - 1, 0) if scored is None else scored

    @property
    def reusable_tokens(self) -> list[int]:
        """The tokens in the cache that another sequence may reuse."""
        return self.tokens[: self.images.align_down(min(self.evaluated, self.reusable_limit))]

    def drop(self, start: int, count: int) -> None:
        """Follow a context shift that dropped `count` tokens from index `start` on."""
        del self.tokens[start : start + count]
        self.evaluated -= count
        self.ngrams = NgramIndex(self.tokens)
        self.reusable_limit = min(self.reusable_limit, start)

    def forced_token(self) -> int | None:
        """Return the next token of the text that closes the thinking; None: the next token is to be sampled."""
        if not self._forced and self.thinking is not None and self.thinking.due:
            closing = self._closings[self.thinking.close()]
            # The model may have begun to close the thinking by itself.
            written = next(
                (count for count in range(len(closing), 0, -1) if self.tokens[-count:] == closing[:count]), 0
            )
            self._forced.extend(closing[written:])
        return self._forced.popleft() if self._forced else None

    def append(
        self,
        token: int,
        logprob: TokenLogprob | None,
        vocabulary: Vocabulary,
        emit: Callable[[SequenceEvent], None],
        *,
        forced: bool = False,
    ) -> bool:
        """Append a token, emit the events that follow from it, and return whether the sequence is over.

        `forced`: the token was not sampled but closes the thinking.
        """
        if self._generated == 0:
            self._first_token_ns = time.monotonic_ns()
        self._generated += 1
        self.tokens.append(token)
        ends = token in vocabulary.end_tokens
        preserved = token in self.preserved
        raw = vocabulary.token_bytes(token, special=True) if preserved else vocabulary.output_bytes(token)
        if self.thinking is not None and not forced:
            self.thinking.feed(raw)
        # Ollama reports no log-probability for an end token that adds no text.
        if logprob is not None and not (ends and not raw):
            self._logprobs.append(logprob)
        text = self._text.feed(raw)
        # Text that was held back as a possible beginning of a stop string turns out to be none.
        if ends and not self._text.stopped:
            text += self._text.finish()
        if text:
            # Entries of tokens whose text is held back wait for the delta that carries the text.
            emit(TextDelta(text, tuple(self._logprobs), self._unreported))
            self._logprobs.clear()
            self._unreported = 0
        # A stop string and an end token win over a token limit that is reached with the same token.
        if self._text.stopped:
            emit(self.finish("stop", self._text.stop_sequence))
        elif ends:
            emit(self.finish("stop"))
        elif self._generated >= self.request.max_tokens:
            emit(self.finish("length"))
        else:
            return False
        return True

    def finish(self, reason: str, stop_sequence: str = "") -> Finish:
        """Return the last event. Durations of phases that took place are at least 1 ns, since 0 means "did not"."""
        now = time.monotonic_ns()
        first_token = self._first_token_ns or now
        return Finish(
            reason=reason,
            stop_sequence=stop_sequence,
            prompt_tokens=self._prompt_length + self._unevaluated,
            cached_prompt_tokens=self._cached,
            output_tokens=self._generated,
            prompt_eval_ns=max(first_token - self._started_ns + self.images.encoding_ns, 1),
            eval_ns=max(now - first_token, 1) if self._generated else 0,
            draft_tokens=self.drafted,
            accepted_draft_tokens=self.accepted,
            thinking_tokens=self.thinking.spent if self.thinking is not None else 0,
        )
