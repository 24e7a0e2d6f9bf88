"""Contract tests of several sequences: those that run together, that wait, and that fail."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

from puna.backend import Finish, InvalidRequestError, LoadedModel, Sampling, SequenceRequest, TextDelta
from puna.backend.metadata import enter_request
from puna.testing.answers import Answer, collect, first_event, refused
from puna.testing.harness import GREEDY, ContractBase


class SequenceTests(ContractBase):
    """Sequences have nothing of each other but the engine."""

    def test_more_sequences_than_slots_all_finish(self) -> None:
        """The backend queues the sequences that it cannot run together, and none changes the text of another.

        If it fails: keep the state of each sequence apart (cache, sampler, text), also where they share a batch.
        """

        async def test(model: LoadedModel) -> None:
            count = model.facts.parallel + 3
            changes = [SequenceRequest(prompt=prompt, sampling=GREEDY, max_tokens=self.max_tokens + number)
                       for number, prompt in enumerate(self.prompts(count))]  # fmt: skip
            texts = [(await collect(model, request)).text for request in changes]
            # A stop string of one sequence that would end others too.
            stop = max(texts[1][1:] or "x", key=lambda letter: sum(letter in text for text in texts))
            changes[1] = replace(changes[1], stop=(stop,))
            if self.obeys("seed"):
                hot = Sampling(temperature=1.5, top_k=0, top_p=1.0)
                changes += [self.request(sampling=replace(hot, seed=seed)) for seed in range(count)]
            alone = [await collect(model, request) for request in changes]
            together = await asyncio.gather(*(collect(model, request) for request in changes))
            for request, one, other in zip(changes, alone, together, strict=True):
                assert one.text == other.text, f"{request} gave another text among other sequences"
                assert one.finish.output_tokens == other.finish.output_tokens
            same = await asyncio.gather(*(collect(model, self.request()) for _ in range(count)))
            assert {answer.text for answer in same} == {(await collect(model, self.request())).text}

        self.run(test)

    def test_the_metadata_of_a_request_changes_no_answer(self) -> None:
        """The id and the trace of a request, which are there to be passed on, change no answer.

        If it fails: read `puna.backend.request_metadata` or StartSequence.metadata only to pass it on.
        """

        async def test(model: LoadedModel) -> None:
            plain = await collect(model, self.request())

            async def traced() -> Answer:
                trace = f"00-{7:032x}-{9:016x}-01"
                enter_request({"x-request-id": "contract", "traceparent": trace, "tracestate": "a=1,b=2"})
                return await collect(model, self.request())

            # In a task of its own, so that the metadata ends with it.
            found = await asyncio.create_task(traced())
            assert (found.text, found.finish.output_tokens) == (plain.text, plain.finish.output_tokens)

        self.run(test)

    def test_slots_run_at_once(self) -> None:
        """As many sequences as `facts.parallel` says run together, rather than one after the other.

        If it fails: advance all running sequences in turn, or set `facts.parallel` to what the engine can do.
        """

        async def test(model: LoadedModel) -> None:
            order: list[int] = []

            async def follow(number: int, prompt: str) -> None:
                async with aclosing(model.generate(self.request(prompt=prompt, max_tokens=64))) as events:
                    async for event in events:
                        order.extend([number] * isinstance(event, TextDelta | Finish))
                        # The host gives other sequences a turn after each event.
                        await asyncio.sleep(0)

            count = model.facts.parallel
            await asyncio.gather(*(follow(number, prompt) for number, prompt in enumerate(self.prompts(count))))
            if min(map(order.count, range(count))) > 8:
                # Each has begun before any of them has ended.
                begun = max(order.index(number) for number in range(count))
                ended = min(len(order) - order[::-1].index(number) for number in range(count))
                assert begun < ended, f"{count} sequences ran one after the other"

        self.run(test)

    def test_tokenizing_needs_no_slot(self) -> None:
        """Texts are tokenized, and tokens are turned into text, while all slots are taken.

        If it fails: `tokenize` and `detokenize` must not wait for a sequence to end.
        """

        async def test(model: LoadedModel) -> None:
            if not model.facts.tokenizer:
                return
            async with AsyncExitStack() as stack:
                for prompt in self.prompts(model.facts.parallel):
                    request = self.request(prompt=prompt, max_tokens=10_000)
                    await first_event(await stack.enter_async_context(aclosing(model.generate(request))))
                async with asyncio.timeout(self.stop_seconds):
                    tokens = await model.tokenize("a", add_special=False, parse_special=False)
                    await model.detokenize(tokens, special=False)

        self.run(test)

    def test_a_failure_concerns_one_sequence(self) -> None:
        """A request that is refused leaves the sequences beside it alone.

        If it fails: check a request before it joins the others, and raise from its own generator.
        """

        async def test(model: LoadedModel) -> None:
            if not model.facts.tokenizer:
                return
            alone = (await collect(model, self.request())).text
            bad = [refused(model, self.request(prompt=(-1,))) for _ in range(3)]
            good = [collect(model, self.request()) for _ in range(model.facts.parallel)]
            answers = await asyncio.gather(*bad, *good)
            assert all(isinstance(error, InvalidRequestError) for error in answers[:3])
            assert {answer.text for answer in answers[3:] if isinstance(answer, Answer)} == {alone}

        self.run(test)

    def test_a_slow_reader_loses_nothing(self) -> None:
        """Events wait for a reader that is slower than the model.

        If it fails: a queue between the engine and the generator must not drop events, however long it grows.
        """

        async def test(model: LoadedModel) -> None:
            text, fast = "", await collect(model, self.request())
            async with aclosing(model.generate(self.request())) as events:
                async for event in events:
                    await asyncio.sleep(0.005)
                    text += event.text if isinstance(event, TextDelta) else ""
            assert text == fast.text

        self.run(test)
