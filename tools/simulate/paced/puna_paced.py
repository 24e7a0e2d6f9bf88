"""A backend that computes nothing, and takes the time that a model's steps take on a machine of its own.

Several hosts on one machine share its cores, so they say little about several machines. Hosts of this backend sleep for
the costs of `tools.simulate`, have slots and a prefix cache, and share nothing. Put this folder on PYTHONPATH and
`paced` is installed. A token is four bytes of text. Its slots keep prompts as those of llama.cpp do.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final

from puna.backend import (
    Backend,
    Finish,
    LoadedModel,
    ModelFacts,
    ModelSpec,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
    TokenLogprob,
)
from puna_llama_cpp.generation.prefix_cache import CachedPrefix, choose_slot
from puna_llama_cpp.generation.schedule import PrefillBudget

STEP: Final = 0.003
SEQUENCE: Final = 0.0025
PREFILL: Final = 0.0015
BATCH: Final = 512
"""The costs that `tools.simulate` has built in: seconds of a step, for each sequence and each prompt token in it."""
TOKEN: Final = 4
"""Bytes of a token."""
LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz"


@dataclass(slots=True, eq=False)
class Running:
    """A sequence with a slot."""

    prefill: int
    """Prompt tokens that are not evaluated yet."""
    left: int
    """Tokens that are still to be generated."""
    tokens: "asyncio.Queue[int]" = field(default_factory=asyncio.Queue)
    """Tokens that have been generated."""


class Paced(LoadedModel):
    """A model whose steps are pauses."""

    def __init__(self, spec: ModelSpec) -> None:
        """`spec` says how many slots it has and how long a sequence may be."""
        slots = spec.parallel or 8
        self._facts = ModelFacts(
            context_length=spec.context_length, parallel=slots, kv_cache_tokens=slots * spec.context_length
        )
        self._slots = [CachedPrefix(index, (), True, 0) for index in range(slots)]
        self._clock = itertools.count(1)
        self._running: list[Running] = []
        self._begun = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def facts(self) -> ModelFacts:
        """The facts of the model."""
        return self._facts

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Run a sequence of random words."""
        text = request.prompt
        prompt = _tokens(text) if isinstance(text, str) else list(text)
        slot, cached = self._take(prompt, request.cache_salt)
        running = Running(len(prompt) - cached, max(request.max_tokens, 1))
        count, began, first, said = running.left, perf_counter(), 0.0, []
        self._running.append(running)
        self._begun.set()
        try:
            for _ in range(count):
                said.append(await running.tokens.get())
                first = first or perf_counter()
                raw = _bytes(said[-1])
                logprobs = () if request.top_logprobs is None else (TokenLogprob(raw, said[-1], -1.0),)
                yield TextDelta(raw.decode(), logprobs)
        finally:
            if running in self._running:
                self._running.remove(running)
            self._hold(slot, prompt + said, request.cache_salt, generated=len(said))
        yield Finish(
            reason="length",
            prompt_tokens=len(prompt),
            cached_prompt_tokens=cached,
            output_tokens=count,
            prompt_eval_ns=int((first - began) * 1e9),
            eval_ns=int((perf_counter() - first) * 1e9),
        )

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:  # noqa: ARG002
        """Return the token ids of a text."""
        return _tokens(text)

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:  # noqa: ARG002
        """Return the bytes of each token."""
        return [_bytes(each) for each in tokens]

    async def aclose(self) -> None:
        """End the steps."""
        self._task.cancel()

    async def _run(self) -> None:
        """Make steps as long as sequences run. Prompts are evaluated in the order of their arrival."""
        budget = PrefillBudget()
        while True:
            if not self._running:
                self._begun.clear()
                await self._begun.wait()
            began = perf_counter()
            decoding = [each for each in self._running if not each.prefill]
            prompts = [each for each in self._running if each.prefill]
            room = BATCH - len(decoding)
            if decoding and prompts:
                room = min(room, budget.tokens(len(decoding), len(prompts)))
            count, evaluated = len(decoding), 0
            for each in prompts:
                part = min(each.prefill, room - evaluated)
                each.prefill -= part
                evaluated += part
                if not each.prefill:
                    decoding.append(each)
            seconds = STEP + SEQUENCE * count + PREFILL * evaluated
            budget.observe(count, evaluated, seconds)
            await asyncio.sleep(max(seconds - (perf_counter() - began), 0))
            for each in decoding:
                each.left -= 1
                each.tokens.put_nowait(int.from_bytes(b" " + bytes(random.choices(LETTERS, k=TOKEN - 1)), "big"))
            self._running = [each for each in self._running if each.left > 0]

    def _take(self, prompt: list[int], salt: str) -> tuple[int, int]:
        """Place a prompt; return its slot and how many of its tokens are cached."""
        placement = choose_slot(prompt, salt, self._slots)
        assert placement is not None, "the server sends no more sequences than there are slots"
        if placement.moved_to is not None:
            self._slots[placement.moved_to] = replace(self._slots[placement.slot], slot=placement.moved_to)
        elif placement.vacated and placement.copied_from is not None:
            self._slots[placement.copied_from] = CachedPrefix(placement.copied_from, (), True, 0)
        self._hold(placement.slot, prompt, salt)
        return placement.slot, placement.reused

    def _hold(self, slot: int, tokens: list[int], salt: str, *, generated: int | None = None) -> None:
        """Have a slot hold tokens. `generated`: how many of them were written, by a sequence that has ended."""
        idle = generated is not None
        self._slots[slot] = CachedPrefix(slot, tokens, idle, next(self._clock), salt, generated=generated or 0)


def _tokens(text: str) -> list[int]:
    raw = text.encode()
    return [int.from_bytes(raw[start : start + TOKEN], "big") for start in range(0, len(raw), TOKEN)]


def _bytes(token: int) -> bytes:
    return token.to_bytes((token.bit_length() + 7) // 8, "big")


class PacedBackend(Backend):
    """Loads any file."""

    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Return a model."""
        report(1.0)
        return Paced(spec)
