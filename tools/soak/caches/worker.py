"""A process that has a model and answers prompts, as a host does, until it is killed or has answered all of them."""

import asyncio
import itertools
import logging
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from puna.backend import Finish, ModelSpec, Sampling, SequenceRequest, TextDelta
from puna_llama_cpp import LlamaCppBackend

_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of the soak."""

    tokens: tuple[int, ...]
    salt: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a prompt."""

    prompt: int
    """The index of the prompt."""
    text: str
    cached: int
    """Tokens that were not evaluated."""


@dataclass(frozen=True, slots=True)
class Task:
    """The work of a process."""

    model: Path
    options: dict[str, object]
    """Options of the backend."""
    prompts: Sequence[Prompt]
    seed: int | None
    """Of the endless random order of prompts; None: each once, in order."""
    log: Path


def work(task: Task, answers: Connection) -> None:
    """Answer prompts. Everything that is written to standard error goes to the log."""
    os.dup2(os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(_work(task, answers))


async def _work(task: Task, answers: Connection) -> None:
    # One slot, so that each prompt evicts the one before.
    spec = ModelSpec(path=str(task.model), threads=1, parallel=1, backend_options=task.options)
    _prepare()
    model = await LlamaCppBackend().load(spec, lambda _done: None)
    for number in _order(task):
        prompt = task.prompts[number]
        sampling = Sampling(temperature=0)
        request = SequenceRequest(prompt=prompt.tokens, cache_salt=prompt.salt, sampling=sampling, max_tokens=_TOKENS)
        text, cached = "", 0
        async for event in model.generate(request):
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, Finish):
                cached = event.cached_prompt_tokens
        answers.send(Answer(number, text, cached))
    await model.aclose()


def _prepare() -> None:
    """Give a tiny model the times of a large one, and have a small disk used to its end."""
    # Imported here, since it loads llama.cpp, which must come after the kernels.
    from puna_llama_cpp.kv_store import cache, file_format, folder, writer

    # A tiny model evaluates sooner than a disk reads.
    vars(cache)["_ASSUMED_BYTES_PER_SECOND"] = 1e18
    # The writing pauses between blocks, so that it takes long, and kills meet it.
    vars(file_format)["BLOCK_BYTES"] = 1 << 12
    vars(writer)["_SHARE"] = 0.01
    vars(folder)["_KEPT_FREE_BYTES"] = 0


def _order(task: Task) -> Iterator[int]:
    numbers = range(len(task.prompts))
    if task.seed is None:
        yield from numbers
        return
    draw = random.Random(task.seed)
    for _ in itertools.count():
        yield draw.choice(numbers)
