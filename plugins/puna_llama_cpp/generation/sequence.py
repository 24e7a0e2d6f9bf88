"""One sequence from its prompt to its end. Lives on the decode thread, but for `cancelled`."""

import sys
import time
from collections.abc import Callable

from puna.backend import Finish, SequenceEvent, SequenceRequest, TextDelta, TokenLogprob
from puna.backend.text import TextAssembly
from puna_ggml_kernels.loader import TILED_PREFILL_ROWS
from puna_llama_cpp.binding.vocabulary import Vocabulary
from puna_llama_cpp.generation.prompt_lookup import Lookup
from puna_llama_cpp.sampling.chain import SamplerChain
from puna_llama_cpp.step_thread import Mailbox
from puna_llama_cpp.structured_output.constraint import Matcher
from puna_llama_cpp.vision.image_tokens import Pictures


class Sequence:
    """Its tokens (prompt and output, less what a shift forgot), its place in the cache, and what it has said."""

    def __init__(
        self,
        request: SequenceRequest,
        tokens: list[int],
        matcher: Matcher | None,
        preserved: frozenset[int],
        pictures: Pictures | None = None,
    ) -> None:
        """Take a prompt as tokens; belongs to the running event loop."""
        self.request = request
        self.mailbox: Mailbox[SequenceEvent] = Mailbox()
        self.tokens = tokens
        self.matcher = matcher
        self.preserved = preserved
        self.pictures = pictures or Pictures()
        """Those in the prompt. Sequences with any are never shifted."""
        self.cancelled = False
        self.slot = -1
        self.evaluated = 0
        """How many of `tokens` are in the cache."""
        self.pure = sys.maxsize
        """How many leading tokens are in the cache as if evaluated alone: a shift leaves only those it keeps."""
        self.chain: SamplerChain | None = None
        self.lookup = Lookup()
        self.first = sys.maxsize
        """Where evaluation would have begun, were it alone: how many tokens were cached when it came."""
        self._output = TextAssembly(request.stop)
        self._prompt_length = len(tokens)
        self._cached = 0
        self._generated = 0
        self._logprobs: list[TokenLogprob] = []
        self._started_ns = self._first_ns = 0

    def start(self, slot: int, reused: int) -> None:
        """Take a slot, whose cache has the first `reused` tokens."""
        self.slot, self.evaluated, self._cached = slot, reused, reused
        self.first = min(self.first, reused)
        self._started_ns = time.monotonic_ns()

    @property
    def pending(self) -> int:
        """How many tokens wait for evaluation."""
        return len(self.tokens) - self.evaluated

    def among_many(self, batch_size: int) -> bool:
        """Say whether its next token would be one of TILED_PREFILL_ROWS or more in a batch of its own."""
        before = (self.evaluated - self.first) // batch_size * batch_size
        return min(batch_size, self._prompt_length - self.first - before) >= TILED_PREFILL_ROWS

    @property
    def prompt_length(self) -> int:
        """How many tokens the prompt had."""
        return self._prompt_length

    @property
    def begun(self) -> bool:
        """Whether a token was drawn."""
        return self._generated > 0

    @property
    def streaming(self) -> bool:
        """Whether it is past its prompt and waits for its next token only."""
        return self.begun and self.pending == 1

    @property
    def content(self) -> list[int]:
        """The tokens in the cache that another sequence may take over."""
        return self.tokens[: self.pictures.floor(min(self.evaluated, self.pure))]

    def forget(self, start: int, count: int) -> None:
        """Follow a context shift that dropped `count` tokens from `start` on."""
        del self.tokens[start : start + count]
        self.evaluated -= count
        self.lookup.reset()
        self.pure = min(self.pure, start)

    def take(
        self, token: int, logprob: TokenLogprob | None, vocabulary: Vocabulary, put: Callable[[SequenceEvent], None]
    ) -> bool:
        """Add a drawn token, put what is to be said of it, and return whether the sequence is over."""
        if self._generated == 0:
            self._first_ns = time.monotonic_ns()
        self._generated += 1
        self.tokens.append(token)
        ends = token in vocabulary.ends
        raw = vocabulary.spell(token, special=True) if token in self.preserved else vocabulary.piece(token)
        if logprob is not None and not (ends and not raw):
            self._logprobs.append(logprob)
        text = self._output.feed(raw)
        if ends and not self._output.stopped:
            text += self._output.finish()
        if text:
            put(TextDelta(text, tuple(self._logprobs)))
            self._logprobs.clear()
        if self._output.stopped:
            put(self.finish("stop", self._output.stop_sequence))
        elif ends:
            put(self.finish("stop"))
        elif self._generated >= self.request.max_tokens:
            put(self.finish("length"))
        else:
            return False
        return True

    def finish(self, reason: str, stop: str = "") -> Finish:
        """Return its end with its counts and times; nothing is 0 that took place."""
        now = time.monotonic_ns()
        first = self._first_ns or now
        return Finish(
            reason=reason,
            stop_sequence=stop,
            prompt_tokens=self._prompt_length,
            cached_prompt_tokens=self._cached,
            output_tokens=self._generated,
            prompt_eval_ns=max(first - self._started_ns + self.pictures.encoding_ns, 1),
            eval_ns=max(now - first, 1) if self._generated else 0,
        )
