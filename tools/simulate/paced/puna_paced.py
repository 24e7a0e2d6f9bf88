"""A backend that computes nothing, and takes the time that a model's steps take on a machine of its own.

Several hosts on one machine share its cores, so they say little about several machines. Hosts of this backend sleep for
the costs of `tools.simulate`, have slots and a prefix cache, and share nothing. Put this folder on PYTHONPATH and
`paced` is installed. A token is four bytes of text.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from puna.backend import Backend, Finish, LoadedModel, ModelFacts, ModelSpec, SequenceEvent, SequenceRequest, TextDelta

STEP: Final = 0.003
SEQUENCE: Final = 0.0025
PREFILL: Final = 0.0015
BATCH: Final = 512
"""The costs that `tools.simulate` has built in: seconds of a step, for each sequence and each prompt token in it."""
TOKEN: Final = 4
"""Bytes of a token."""
BLOCK: Final = 16
"""Tokens of a block, which is cached as a whole or not at all."""
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


@dataclass(slots=True, eq=False)
class Running:
    """A sequence with a slot."""

    prefill: int
    """Prompt tokens that are not evaluated yet."""
    left: int
    """Tokens that are still to be generated."""
    deltas: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)


class Paced(LoadedModel):
    """A model whose steps are pauses."""

    def __init__(self, spec: ModelSpec) -> None:
        """`spec` says how many slots it has and how long a sequence may be."""
        slots = spec.parallel or 8
        self._facts = ModelFacts(
            context_length=spec.context_length, parallel=slots, kv_cache_tokens=slots * spec.context_length
        )
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._running: list[Running] = []
        self._begun = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def facts(self) -> ModelFacts:
        """The facts of the model."""
        return self._facts

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Run a sequence of random words."""
        assert isinstance(request.prompt, str)
        prompt = request.prompt.encode()
        tokens = -(-len(prompt) // TOKEN)
        cached = min(self._match(prompt, request.cache_salt), tokens - 1)
        running = Running(tokens - cached, max(request.max_tokens, 1))
        count, began, first, said = running.left, perf_counter(), 0.0, ""
        self._running.append(running)
        self._begun.set()
        try:
            for _ in range(count):
                said += (delta := await running.deltas.get())
                first = first or perf_counter()
                yield TextDelta(delta)
            self._use(prompt + said.encode(), request.cache_salt)
        finally:
            if running in self._running:
                self._running.remove(running)
        yield Finish(
            reason="length",
            prompt_tokens=tokens,
            cached_prompt_tokens=cached,
            output_tokens=count,
            prompt_eval_ns=int((first - began) * 1e9),
            eval_ns=int((perf_counter() - first) * 1e9),
        )

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:  # noqa: ARG002
        """Return the token ids of a text."""
        raw = text.encode()
        return [int.from_bytes(raw[start : start + TOKEN], "big") for start in range(0, len(raw), TOKEN)]

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:  # noqa: ARG002
        """Return the bytes of each token."""
        return [each.to_bytes((each.bit_length() + 7) // 8, "big") for each in tokens]

    async def aclose(self) -> None:
        """End the steps."""
        self._task.cancel()

    async def _run(self) -> None:
        """Make steps as long as sequences run. Prompts are evaluated in the order of their arrival."""
        while True:
            if not self._running:
                self._begun.clear()
                await self._begun.wait()
            began = perf_counter()
            decoding = [each for each in self._running if not each.prefill]
            prompts = [each for each in self._running if each.prefill]
            decode = STEP + SEQUENCE * len(decoding)
            room = BATCH
            if decoding:
                fitting = decode * (1 + len(prompts) / len(decoding)) / PREFILL
                room = min(max(8, int(fitting)), BATCH - len(decoding))
            evaluated = 0
            for each in prompts:
                part = min(each.prefill, room - evaluated)
                each.prefill -= part
                evaluated += part
                if not each.prefill:
                    decoding.append(each)
            await asyncio.sleep(max(decode + PREFILL * evaluated - (perf_counter() - began), 0))
            for each in decoding:
                each.left -= 1
                each.deltas.put_nowait(" " + "".join(random.choices(LETTERS, k=TOKEN - 1)))
            self._running = [each for each in self._running if each.left > 0]

    def _match(self, text: bytes, salt: str) -> int:
        """Return how many tokens of a prompt are cached, and keep all of it."""
        found = 0
        for number, each in enumerate(_blocks(text, salt), 1):
            if each not in self._blocks:
                break
            found = number
        self._use(text, salt)
        return found * BLOCK

    def _use(self, text: bytes, salt: str) -> None:
        for each in reversed(_blocks(text, salt)):
            self._blocks[each] = None
            self._blocks.move_to_end(each)
        while len(self._blocks) * BLOCK > self._facts.kv_cache_tokens:
            self._blocks.popitem(last=False)


def _blocks(text: bytes, salt: str) -> list[int]:
    found, last, size = [], hash(salt), BLOCK * TOKEN
    for start in range(0, len(text) - size + 1, size):
        last = hash((last, text[start : start + size]))
        found.append(last)
    return found


class PacedBackend(Backend):
    """Loads any file."""

    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Return a model."""
        report(1.0)
        return Paced(spec)
