"""The backend contract as tests, for plugin authors. Subclass BackendContract, say what to load, and run pytest:

    class TestParrot(BackendContract):
        backend_class = ParrotBackend

        def spec(self) -> ModelSpec:
            return ModelSpec(path="/models/polly.txt", context_length=64)

Nothing but pytest is needed. The model should be small, since each test loads it anew. An operation that the model
does not support, such as embedding, must be refused as the contract says; then the refusal is tested.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from puna.backend import (
    Backend,
    BackendError,
    Constraint,
    Embedding,
    Finish,
    InvalidRequestError,
    LoadedModel,
    ModelSpec,
    Prefill,
    PromptTooLongError,
    Sampling,
    SequenceRequest,
    TextDelta,
    UnsupportedError,
)
from puna.plugins import Registry
from puna.runtime.pool import ModelPool
from puna.runtime.requirements import ModelRequirements
from puna.settings import Settings

GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """The events of a complete sequence."""

    deltas: tuple[TextDelta, ...]
    finish: Finish

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(delta.text for delta in self.deltas)


async def collect(model: LoadedModel, request: SequenceRequest) -> Answer:
    """Run a sequence to its end, and check that its events come in the order of the contract."""
    deltas: list[TextDelta] = []
    finish = None
    async with aclosing(model.generate(request)) as events:
        async for event in events:
            assert finish is None, f"{event} came after the Finish"
            match event:
                case Prefill():
                    assert not deltas, f"{event} came after a text delta"
                    assert 0 <= event.done_tokens <= event.total_tokens
                case TextDelta():
                    assert event.text or event.logprobs, "a text delta is empty"
                    deltas.append(event)
                case Finish():
                    finish = event
    assert finish is not None, "the generator ended without a Finish"
    assert finish.reason in ("stop", "length")
    return Answer(tuple(deltas), finish)


async def refusal(call: Coroutine[Any, Any, object]) -> BackendError:
    """Return the contract's error that a call raises. Raises AssertionError if it raises none."""
    try:
        await call
    except BackendError as error:
        return error
    raise AssertionError("it should have been refused")


class BackendContract:
    """Tests that every backend passes. Override `backend_class` and `spec`, and the rest where your model needs it."""

    backend_class: ClassVar[type[Backend]]
    prompt: ClassVar[str] = "Why is the sky blue?"
    """A prompt after which the model generates at least one token."""
    max_tokens: ClassVar[int] = 24
    seconds: ClassVar[float] = 60.0
    """Timeout of one test."""
    stop_seconds: ClassVar[float] = 5.0
    """Timeout for the end of a cancelled sequence."""
    entry_point: ClassVar[str] = ""
    """The plugin's name, if it is installed: then it is also tested through a host process, as the server runs it."""
    model_format: ClassVar[str] = "gguf"

    def spec(self) -> ModelSpec:
        """Return what to load. A small context makes the tests fast."""
        raise NotImplementedError

    def request(self, **values: Any) -> SequenceRequest:  # noqa: ANN401 (fields of the request)
        """Return a request with these fields."""
        return replace(SequenceRequest(prompt=self.prompt, sampling=GREEDY, max_tokens=self.max_tokens), **values)

    @asynccontextmanager
    async def loaded(self) -> AsyncIterator[LoadedModel]:
        """Load the model for one test."""
        model = await self.backend_class().load(self.spec(), lambda _: None)
        try:
            yield model
        finally:
            await model.aclose()

    def run(self, test: Callable[[LoadedModel], Coroutine[Any, Any, None]]) -> None:
        """Run a test with a loaded model."""

        async def limited() -> None:
            async with asyncio.timeout(self.seconds), self.loaded() as model:
                await test(model)

        asyncio.run(limited())

    # ---- Loading ----

    def test_the_manifest_names_the_class(self) -> None:
        """The core finds the backend by its manifest and can start its host."""
        if self.entry_point:
            backend = Registry.discover().get(self.entry_point)
            assert backend.usable.host.python_class.partition(":")[2] == self.backend_class.__qualname__

    def test_loading_tells_how_far_it_is(self) -> None:
        """Progress goes from 0 to 1 and never backwards."""
        fractions: list[float] = []

        async def test() -> None:
            model = await self.backend_class().load(self.spec(), fractions.append)
            await model.aclose()

        asyncio.run(test())
        assert all(0 <= fraction <= 1 for fraction in fractions)
        assert fractions == sorted(fractions)

    def test_a_file_that_is_not_there_is_refused(self) -> None:
        """A missing file raises the contract's error, whose text the user sees."""
        spec = replace(self.spec(), path="/no/such/model")
        error = asyncio.run(refusal(self.backend_class().load(spec, lambda _: None)))
        assert isinstance(error, InvalidRequestError)

    def test_the_facts_make_sense(self) -> None:
        """Lengths and sizes are in their ranges."""

        async def test(model: LoadedModel) -> None:
            facts = model.facts
            assert facts.context_length > 0
            assert facts.parallel >= 1
            assert facts.size_bytes >= facts.vram_bytes >= 0

        self.run(test)

    # ---- Generating ----

    def test_a_prompt_is_continued(self) -> None:
        """A sequence yields text deltas, then one Finish with plausible counts."""

        async def test(model: LoadedModel) -> None:
            answer = await collect(model, self.request())
            assert answer.text
            assert 0 < answer.finish.output_tokens <= self.max_tokens
            assert 0 <= answer.finish.cached_prompt_tokens <= answer.finish.prompt_tokens

        self.run(test)

    def test_the_same_again_gives_the_same(self) -> None:
        """The same request gives the same text, greedily and with a seed."""

        async def test(model: LoadedModel) -> None:
            for sampling in (GREEDY, Sampling(seed=7, temperature=0.8)):
                request = self.request(sampling=sampling)
                assert (await collect(model, request)).text == (await collect(model, request)).text

        self.run(test)

    def test_a_limit_is_kept(self) -> None:
        """A limit of 1 gives one token; a limit of 0 evaluates the prompt only."""

        async def test(model: LoadedModel) -> None:
            one = await collect(model, self.request(max_tokens=1))
            assert one.finish.output_tokens == 1
            none = await collect(model, self.request(max_tokens=0))
            assert (none.deltas, none.finish.reason, none.finish.output_tokens) == ((), "length", 0)

        self.run(test)

    def test_a_stop_string_ends_the_text_and_is_not_in_it(self) -> None:
        """The text ends before the stop string, also if the string begins inside a token."""

        async def test(model: LoadedModel) -> None:
            whole = (await collect(model, self.request())).text
            middle = len(whole) // 2
            for stop in (whole[middle : middle + 1], whole[middle : middle + 4]):
                answer = await collect(model, self.request(stop=("never\0there", stop)))
                assert answer.text == whole.partition(stop)[0]
                assert (answer.finish.reason, answer.finish.stop_sequence) == ("stop", stop)

        self.run(test)

    def test_tokens_do_as_well_as_text(self) -> None:
        """The token ids of a prompt give the same text as the prompt."""

        async def test(model: LoadedModel) -> None:
            tokens = await model.tokenize(self.prompt, add_special=True, parse_special=True)
            of_tokens = await collect(model, self.request(prompt=tuple(tokens)))
            of_text = await collect(model, self.request())
            assert of_tokens.text == of_text.text
            assert of_tokens.finish.prompt_tokens == of_text.finish.prompt_tokens == len(tokens)

        self.run(test)

    def test_what_is_no_token_is_refused(self) -> None:
        """An id outside the vocabulary must not be used as an index."""

        async def test(model: LoadedModel) -> None:
            for call in (collect(model, self.request(prompt=(-1,))), model.detokenize([2**31 - 1], special=True)):
                assert isinstance(await refusal(call), InvalidRequestError)

        self.run(test)

    def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(self) -> None:
        """The core truncates prompts by these numbers."""

        async def test(model: LoadedModel) -> None:
            error = await refusal(collect(model, self.request(prompt=await self.long_prompt(model, 1))))
            assert isinstance(error, PromptTooLongError)
            assert error.prompt_tokens > model.facts.context_length
            assert error.context_length <= model.facts.context_length

        self.run(test)

    def test_more_sequences_than_slots_all_finish(self) -> None:
        """The backend queues the sequences that it cannot run together, and none changes the text of another."""

        async def test(model: LoadedModel) -> None:
            alone = (await collect(model, self.request())).text
            many = [collect(model, self.request()) for _ in range(model.facts.parallel + 2)]
            assert {answer.text for answer in await asyncio.gather(*many)} == {alone}

        self.run(test)

    def test_log_probabilities_are_right_or_refused(self) -> None:
        """Log-probabilities are natural logarithms, and the most probable alternative comes first."""

        async def test(model: LoadedModel) -> None:
            try:
                answer = await collect(model, self.request(top_logprobs=3))
            except UnsupportedError:
                return
            logprobs = [each for delta in answer.deltas for each in delta.logprobs]
            assert 0 < len(logprobs) <= answer.finish.output_tokens
            for each in logprobs:
                assert len(each.top) == 3
                assert each.logprob <= each.top[0].logprob + 1e-4 <= 1e-3
                assert sorted(each.top, key=lambda other: -other.logprob) == list(each.top)

        self.run(test)

    def test_a_constraint_is_enforced_or_refused(self) -> None:
        """A backend must never ignore a constraint."""

        async def test(model: LoadedModel) -> None:
            constraint = Constraint("json_schema", '{"type": "array", "items": {"type": "boolean"}, "maxItems": 2}')
            try:
                answer = await collect(model, self.request(constraint=constraint))
            except InvalidRequestError:
                return
            if answer.finish.reason == "stop":
                assert all(isinstance(item, bool) for item in json.loads(answer.text))

        self.run(test)

    # ---- Stopping ----

    def test_closing_a_generator_frees_its_slot(self) -> None:
        """Closing a generator frees its slot soon, however much was left to generate."""

        async def test(model: LoadedModel) -> None:
            for _ in range(model.facts.parallel + 1):
                async with aclosing(model.generate(self.request(max_tokens=10_000))) as events:
                    async for _ in events:
                        break
            async with asyncio.timeout(self.stop_seconds):
                await collect(model, self.request(max_tokens=1))

        self.run(test)

    def test_a_long_prompt_can_be_stopped(self) -> None:
        """Cancelling ends a prefill soon, before the first text delta."""

        async def test(model: LoadedModel) -> None:
            # A few tokens shorter than the context, so that the prompt is evaluated rather than refused.
            prompt = await self.long_prompt(model, -8)
            tasks = [asyncio.ensure_future(collect(model, self.request(prompt=prompt))) for _ in range(3)]
            # Long enough for the prefill to begin, too short for it to end.
            await asyncio.sleep(0.01)
            async with asyncio.timeout(self.stop_seconds):
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await collect(model, self.request(max_tokens=1))

        self.run(test)

    # ---- Tokens, vectors, ranks ----

    def test_tokens_come_back_as_text(self) -> None:
        """Tokens give back the text, including line breaks and characters of several bytes."""

        async def test(model: LoadedModel) -> None:
            # SentencePiece tokenizers put a space in front, which is not part of the text.
            text = "Zoë said: 🙂\nyes"
            tokens = await model.tokenize(text, add_special=False, parse_special=False)
            raw = b"".join(await model.detokenize(tokens, special=False))
            assert raw.decode().removeprefix(" ") == text

        self.run(test)

    def test_texts_are_embedded_in_order_or_refused(self) -> None:
        """Vectors have length 1 and are the same alone as in a batch."""

        async def test(model: LoadedModel) -> None:
            texts = ["the cat", self.prompt, "the cat"]
            if not model.facts.embedding_length:
                assert isinstance(await refusal(model.embed(texts)), UnsupportedError)
                return
            together = await model.embed(texts)
            for text, vector in zip(texts, together, strict=True):
                assert len(vector.values) == model.facts.embedding_length
                assert math.isclose(math.hypot(*vector.values), 1, rel_tol=1e-3)
                assert vector.token_count == len(await model.tokenize(text, add_special=True, parse_special=True))
                assert close(vector, (await model.embed([text]))[0])
            assert close(together[0], together[2])
            assert not close(together[0], together[1])
            too_long = await self.long_prompt(model, 1)
            assert isinstance(await refusal(model.embed([too_long])), PromptTooLongError)

        self.run(test)

    def test_documents_are_ranked_or_refused(self) -> None:
        """Every document gets a score."""

        async def test(model: LoadedModel) -> None:
            try:
                assert len(await model.rerank(self.prompt, ["one", "two"])) == 2
            except UnsupportedError:
                return

        self.run(test)

    # ---- As the server does it ----

    def test_it_is_installed_and_answers_through_a_host(self) -> None:
        """The answer through a host is the same as without one."""

        async def test() -> None:
            want = ModelRequirements(
                key="model", name="model", spec=self.spec(), format=self.model_format, backend=self.entry_point
            )
            async with (
                asyncio.timeout(self.seconds),
                ModelPool(Registry.discover(), Settings()) as pool,
                pool.lease(want) as lease,
                self.loaded() as alone,
            ):
                assert lease.backend == self.entry_point
                assert (await collect(lease.model, self.request())).text == (await collect(alone, self.request())).text

        if self.entry_point:
            asyncio.run(test())

    async def long_prompt(self, model: LoadedModel, more: int) -> tuple[int, ...]:
        """Return as many tokens as the context has, plus `more`, which may be negative."""
        tokens = await model.tokenize(self.prompt, add_special=False, parse_special=False)
        length = model.facts.context_length + more
        return tuple((tokens * (length // len(tokens) + 1))[:length])


def close(one: Embedding, other: Embedding) -> bool:
    """Return whether two vectors are equal up to rounding."""
    pairs: Sequence[tuple[float, float]] = list(zip(one.values, other.values, strict=True))
    return all(math.isclose(a, b, abs_tol=1e-3) for a, b in pairs)
