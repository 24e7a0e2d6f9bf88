"""The backend contract over ctransformers: loading, and one sequence at a time."""

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

from puna.backend import (
    Backend,
    BackendError,
    Embedding,
    Finish,
    InvalidRequestError,
    LoadedModel,
    ModelFacts,
    ModelSpec,
    SequenceEvent,
    SequenceRequest,
    UnsupportedError,
)
from puna.blocking import iterate
from puna_ctransformers.engine import Engine, check_length
from puna_ctransformers.header import GGUFError, Header
from puna_ctransformers.native import NativeModel
from puna_ctransformers.vocabulary import Vocabulary

MIN_CONTEXT_LENGTH = 4
"""A context shift needs room for the tokens that it drops and keeps."""


class CTransformersModel(LoadedModel):
    """A loaded model. It runs one call at a time; others wait in order of arrival."""

    def __init__(self, model: NativeModel, header: Header, threads: int) -> None:
        """Take a loaded model. `threads`: the number of threads that evaluate."""
        self._vocabulary = Vocabulary(header, model)
        self._facts = _facts(header, self._vocabulary, model.context_length)
        self._engine = Engine(model, self._vocabulary, threads)
        # The library has one cache and one set of logits for each model, so calls must not interleave.
        self._turn = asyncio.Lock()
        self._closed = False

    @property
    def facts(self) -> ModelFacts:
        """The properties that the core asks about."""
        return self._facts

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Yield the events of one sequence.

        Raises InvalidRequestError for constraints and biases, which the library lacks.
        """
        # Before the turn is awaited, so that a request that cannot be served does not wait for others.
        if request.constraint is not None:
            raise InvalidRequestError("the ctransformers backend cannot enforce a format or grammar")
        if request.sampling.logit_bias:
            raise InvalidRequestError("the ctransformers backend has no logit_bias")
        if request.media:
            raise UnsupportedError("this model takes no images or sounds")
        if request.score_from is not None:
            raise UnsupportedError("the ctransformers backend gives no log-probabilities of a prompt")
        tokens = await self._tokens(request.prompt)
        check_length(tokens, self._facts.context_length)
        if not tokens:
            yield Finish(reason="stop" if request.max_tokens else "length")
            return
        # `aclosing` waits for the thread before the turn passes on: a cancelled request may still be inside the
        # library.
        async with self._turn:
            self._check_open()  # again, since the model may have been freed while the request waited for its turn
            async with aclosing(iterate(lambda stop: self._engine.generate(tokens, request, stop))) as events:
                async for event in events:
                    yield event

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text, in a thread: the time grows with the text."""
        self._check_open()
        return await asyncio.to_thread(
            self._vocabulary.tokenize, text, add_special=add_special, parse_special=parse_special
        )

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return the bytes of each token."""
        self._check_open()
        self._vocabulary.validate(tokens)
        return [self._vocabulary.token_bytes(token, special=special) for token in tokens]

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the state of each text's last token, scaled to length 1 unless `raw`."""
        batch = [await self._tokens(each) for each in inputs]
        for tokens in batch:
            check_length(tokens, self._facts.context_length)
            if not tokens:
                raise InvalidRequestError("there is nothing to embed")

        def vectors(stopped: Callable[[], bool]) -> Iterator[Embedding]:
            for tokens in batch:
                values = self._engine.embed(tokens, stopped)
                yield Embedding(values if raw else _unit(values), len(tokens))

        async with self._turn:
            self._check_open()
            async with aclosing(iterate(vectors)) as embeddings:
                return [each async for each in embeddings]

    def step(self) -> int | None:
        """Return the number of evaluations so far; None while no call runs."""
        return self._engine.steps if self._turn.locked() else None

    async def aclose(self) -> None:
        """Free the model, after the running call. A second call does nothing."""
        async with self._turn:
            if not self._closed:
                self._closed = True
                # The library frees a model with the last reference to it.
                del self._engine, self._vocabulary

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the model was unloaded")

    async def _tokens(self, prompt: str | Sequence[int]) -> list[int]:
        self._check_open()
        if isinstance(prompt, str):
            return await self.tokenize(prompt, add_special=True, parse_special=True)
        self._vocabulary.validate(prompt)
        return list(prompt)


class CTransformersBackend(Backend):
    """Loads GGUF files of the llama family with a SentencePiece tokenizer, as the library of 2023 knows them."""

    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Load a model in a thread. The library reports no progress and cannot be interrupted."""
        if spec.adapter_paths:
            raise InvalidRequestError("the ctransformers backend takes no adapters")
        try:
            header = await asyncio.to_thread(Header, Path(spec.path))
        except (GGUFError, OSError) as error:
            raise InvalidRequestError(str(error)) from error
        _check_tokenizer(header)
        report(0.0)
        model = await asyncio.to_thread(_load_native, spec, header)
        report(1.0)
        return CTransformersModel(model, header, spec.threads or _physical_cores())


def _physical_cores() -> int:
    """Estimate the physical cores that this process may use. Threads beyond them wait for each other in busy loops."""
    # Half of the CPUs, as if each core had two hyper-threads. On two busy CPUs, two threads were 40 times slower than
    # one.
    return (len(os.sched_getaffinity(0)) + 1) // 2


def _check_tokenizer(header: Header) -> None:
    tokenizer = header.text("tokenizer.ggml.model")
    if tokenizer != "llama" or not header.texts("tokenizer.ggml.tokens"):
        raise InvalidRequestError(f'ctransformers needs the tokenizer "llama"; this model has "{tokenizer}"')


def _load_native(spec: ModelSpec, header: Header) -> NativeModel:
    library = spec.backend_options.get("lib")
    trained = header.number("context_length") or spec.context_length
    try:
        return NativeModel(
            Path(spec.path),
            context_length=max(min(spec.context_length, trained), MIN_CONTEXT_LENGTH),
            mmap=spec.use_mmap is not False,
            library=str(library) if library else None,
        )
    # The library's exception says only that it failed. The reason is on standard error.
    except RuntimeError as error:
        raise InvalidRequestError(str(error)) from error


def _facts(header: Header, vocabulary: Vocabulary, context_length: int) -> ModelFacts:
    return ModelFacts(
        context_length=context_length,
        # The library does not say how much memory it takes. Weights and cache are nearly all of it.
        size_bytes=header.file_bytes + header.cache_bytes(context_length),
        adds_bos=vocabulary.adds_bos,
        adds_eos=vocabulary.adds_eos,
        bos_id=vocabulary.bos_id,
        eos_id=vocabulary.eos_id,
        bos_text=vocabulary.text(vocabulary.bos_id),
        eos_text=vocabulary.text(vocabulary.eos_id),
        embedding_length=header.number("embedding_length"),
    )


def _unit(values: list[float]) -> list[float]:
    length = math.sqrt(sum(each * each for each in values)) or 1.0
    return [each / length for each in values]
