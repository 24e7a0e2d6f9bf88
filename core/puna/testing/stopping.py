"""Contract tests of cancellation, seen from outside: slots, steps, tasks, processor time, and the event loop.

A cancelled sequence must leave nothing that runs. Times depend on the machine, so they are compared with what the same
backend takes without a cancellation, and the best of several tries counts: a busy machine makes a try slower, never
faster.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from puna.backend import LoadedModel, SequenceRequest
from puna.runtime.host_model import HostModel
from puna.testing import hosts
from puna.testing.answers import collect, first_event
from puna.testing.harness import ContractBase

TRIES = 5
ENDLESS = 100_000
"""max_tokens of sequences that are to be cancelled."""
STEPS_SEEN = 64
"""How many step numbers of a working model are looked at."""
IDLE_SECONDS = 0.3
"""How long a model is watched that should be idle."""
MEASURABLE_SECONDS = 0.03
"""A prefill that is shorter cannot be told from the overhead of a request."""
TICK_SECONDS = 0.002


class StoppingTests(ContractBase):
    """Cancelling sequences: queued, in the prefill, and while they generate."""

    def test_closing_a_generator_frees_its_slot(self) -> None:
        """Closing a generator frees its slot at once, however much was left to generate.

        If it fails: catch GeneratorExit and CancelledError with `finally`, tell the engine to drop the sequence, and do
        not wait for the tokens that are left.
        """

        async def test(model: LoadedModel) -> None:
            one = self.request(max_tokens=1)
            alone = await fastest(lambda: collect(model, one))

            async def closed() -> None:
                sequences = [model.generate(self.endless(number)) for number in range(model.facts.parallel + 1)]
                # The last one waits for a slot, or runs; it is closed while its first event is awaited.
                await asyncio.gather(*(first_event(each) for each in sequences[:-1]))
                last = asyncio.ensure_future(first_event(sequences[-1]))
                await asyncio.sleep(0)
                last.cancel()
                await asyncio.gather(last, return_exceptions=True)
                begun = time.perf_counter()
                for each in sequences:
                    await each.aclose()
                await collect(model, one)
                durations.append(time.perf_counter() - begun)

            durations: list[float] = []
            async with asyncio.timeout(self.stop_seconds + self.seconds / 2):
                for _ in range(TRIES):
                    await closed()
            limit = min(self.stop_seconds, 10 * alone + 0.15)
            assert min(durations) < limit, f"a request took {min(durations):.3f} s after a cancel, else {alone:.3f} s"

        self.run(test)

    def test_cancelled_work_stops(self) -> None:
        """Nothing goes on after a cancellation: no step, no task, and no processor time.

        If it fails: the engine still works for the sequence. `step` must return None or stand still, and each task or
        thread that served the sequence must end or wait.
        """

        async def test(model: LoadedModel) -> None:
            await collect(model, self.request(max_tokens=1))
            await asyncio.sleep(0.05)
            tasks = len(asyncio.all_tasks())
            for _ in range(2):
                sequences = [model.generate(self.endless(number)) for number in range(model.facts.parallel)]
                await asyncio.gather(*(first_event(each) for each in sequences))
                for each in sequences:
                    await each.aclose()
                await self.check_idle(model)
            # A task cancelled in the middle of an await, as the server does it.
            running = asyncio.ensure_future(collect(model, self.endless(0)))
            await asyncio.sleep(0.02)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self.check_idle(model)
            # The tasks of grpc end a moment after their calls.
            for _ in range(round(self.stop_seconds / 0.05)):
                if len(asyncio.all_tasks()) <= tasks:
                    break
                await asyncio.sleep(0.05)
            assert len(asyncio.all_tasks()) <= tasks, f"tasks are left: {asyncio.all_tasks()}"

        self.run(test)

    async def check_idle(self, model: LoadedModel) -> None:
        """Check that a model which should be idle does not step, and uses hardly any processor time."""
        async with asyncio.timeout(self.stop_seconds):
            while (before := await self.step(model)) is not None:
                await asyncio.sleep(0.05)
                if await self.step(model) == before:
                    break
        # The best of several looks counts, since other tasks of the test may have a moment of work too.
        spent = []
        for _ in range(3):
            before, used = await self.step(model), self.cpu_seconds(model)
            await asyncio.sleep(IDLE_SECONDS / 3)
            spent.append(self.cpu_seconds(model) - used)
            assert await self.step(model) == before, "the model makes steps although no sequence is open"
        assert min(spent) < IDLE_SECONDS / 6, f"{min(spent):.3f} s of processor time although no sequence is open"

    async def step(self, model: LoadedModel) -> int | None:
        """Return the model's step number."""
        return await hosts.step(model) if self.through_host else model.step()

    def cpu_seconds(self, model: LoadedModel) -> float:
        """Return the processor time that the model's process has used."""
        return hosts.cpu_seconds(model.pid) if isinstance(model, HostModel) else time.process_time()

    def test_a_long_prompt_can_be_stopped(self) -> None:
        """Cancelling ends a prefill soon, long before all of the prompt is evaluated.

        If it fails: evaluate the prompt in batches of `spec.batch_size`, and look between two of them whether the
        sequence is cancelled. Evaluate in a thread, so that the cancellation gets through.
        """

        async def test(model: LoadedModel) -> None:
            if not (model.facts.context_length and model.facts.tokenizer and model.facts.generates):
                return
            prompt = await self.long_prompt(model, -8)

            def request() -> SequenceRequest:
                return self.request(prompt=prompt, max_tokens=1, cache_salt=self.salt())

            complete = await fastest(lambda: collect(model, request()), 3)
            await self.check_queue_of_prefills(model, request)
            if complete < MEASURABLE_SECONDS:
                return

            async def stopped() -> None:
                task = asyncio.ensure_future(collect(model, request()))
                await asyncio.sleep(complete / 8)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await collect(model, self.request(max_tokens=1))

            spent = await fastest(stopped, TRIES)
            assert spent < 0.75 * complete, f"a prefill of {complete:.3f} s took {spent:.3f} s until it was cancelled"

        self.run_alone(lambda: self.with_small_batches(test))

    async def with_small_batches(self, test: Callable[[LoadedModel], Awaitable[None]]) -> None:
        """Run a test with a model that evaluates prompts in small batches."""
        async with self.loaded(batch_size=32) as model:
            await test(model)

    async def check_queue_of_prefills(self, model: LoadedModel, request: Callable[[], SequenceRequest]) -> None:
        """Cancel many prefills at once, and check that the model still serves."""
        tasks = [asyncio.ensure_future(collect(model, request())) for _ in range(model.facts.parallel + 2)]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(self.stop_seconds):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await collect(model, self.request(max_tokens=1))

    def test_a_cancelled_sequence_leaves_the_others(self) -> None:
        """Sequences beside a cancelled one, and after it, give the text that they give alone.

        If it fails: a cancelled sequence must not leave half of a batch in the cache of another, or keep a slot that is
        given away.
        """

        async def test(model: LoadedModel) -> None:
            prompts = self.prompts(model.facts.parallel + 2)
            alone = [(await collect(model, self.request(prompt=prompt))).text for prompt in prompts]
            doomed = model.generate(self.endless(0))
            await first_event(doomed)
            running = [asyncio.ensure_future(collect(model, self.request(prompt=prompt))) for prompt in prompts]
            await asyncio.sleep(0.003)
            await doomed.aclose()
            texts = [answer.text for answer in await asyncio.gather(*running)]
            assert texts == alone
            assert [(await collect(model, self.request(prompt=prompt))).text for prompt in prompts] == alone

        self.run(test)

    def test_queued_sequences_can_be_cancelled(self) -> None:
        """A sequence that is cancelled while it waits for a slot never takes one.

        If it fails: remove the sequence from the queue in `finally`, also if it has just been given a slot.
        """

        async def test(model: LoadedModel) -> None:
            count = 2 * model.facts.parallel
            for _ in range(3):
                tasks = [asyncio.ensure_future(collect(model, self.endless(number))) for number in range(count)]
                for turn in range(count):
                    await asyncio.sleep(0.001 * (turn % 3))
                    tasks[-1 - turn].cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            async with asyncio.timeout(self.stop_seconds):
                await asyncio.gather(*(collect(model, self.request(max_tokens=1)) for _ in range(count)))

        self.run(test)

    def test_a_generator_that_never_ran_holds_nothing(self) -> None:
        """A generator that is closed before its first event holds no slot.

        If it fails: take the slot when the generator runs, not when `generate` is called.
        """

        async def test(model: LoadedModel) -> None:
            for number in range(2 * model.facts.parallel + 1):
                await model.generate(self.endless(number)).aclose()
            async with asyncio.timeout(self.stop_seconds):
                await collect(model, self.request(max_tokens=1))

        self.run(test)

    def test_the_event_loop_stays_free(self) -> None:
        """Other tasks run while a prompt is evaluated and while text is generated, and texts are tokenized meanwhile.

        If it fails: compute in a thread (`puna.blocking.iterate` helps), or give the loop a turn after each step. A
        host that does not answer in time is ended.
        """

        async def test(model: LoadedModel) -> None:
            prompt: str | tuple[int, ...] = self.prompt
            if model.facts.context_length and model.facts.tokenizer:
                prompt = tuple(await self.long_prompt(model, -40))
            gaps: list[float] = []
            while len(gaps) < 3 and min(gaps, default=1) >= self.blocked_seconds:
                async with watched(lambda: self.ping(model)) as watch:
                    sequences = range(model.facts.parallel)
                    salt = self.salt()
                    await asyncio.gather(*(
                        collect(model, self.request(prompt=prompt, cache_salt=f"{salt} {each}")) for each in sequences
                    ))  # fmt: skip
                gaps.append(watch.longest)
            assert min(gaps) < self.blocked_seconds, f"nothing else ran for {min(gaps):.3f} s while text was generated"

        self.run(test)

    async def ping(self, model: LoadedModel) -> None:
        """Do what must be possible at any time."""
        if model.facts.tokenizer:
            await model.tokenize("a", add_special=False, parse_special=False)
        if self.through_host:
            await self.step(model)

    def test_steps_are_counted(self) -> None:
        """`step` returns a number that changes while the model works, and None when it has no work.

        If it fails: count evaluations, and return None while no sequence is open. Or leave `step` out; then each event
        counts as a step.
        """

        async def test(model: LoadedModel) -> None:
            # What an earlier test has cancelled may take a moment to end.
            await self.check_idle(model)
            assert await self.step(model) is None, "step() must return None while the model has no work"
            seen = []
            # A host may run ahead of the reader, so a short answer could end before the first look.
            async with aclosing(model.generate(self.endless(0))) as events:
                async for _ in events:
                    seen.append(await self.step(model))
                    if len(seen) == STEPS_SEEN:
                        break
                    await asyncio.sleep(0)
            if len(seen) > 12 and any(each is not None for each in seen):
                assert len(set(seen)) > 2, f"step() stands still at {set(seen)} while the model works"
            await self.check_idle(model)
            assert await self.step(model) is None, "step() must return None after the last sequence"

        self.run(test)

    def endless(self, number: int) -> SequenceRequest:
        """Return a request for as much text as the model will write."""
        return self.request(prompt=f"{self.prompt} {number}", max_tokens=ENDLESS, cache_salt=self.salt())


@dataclass
class Watch:
    """The longest time for which the event loop did nothing else."""

    longest: float = 0.0
    begun: float = 0.0
    """When the current turn has begun."""

    def note(self) -> None:
        """Take the current turn into account."""
        self.longest = max(self.longest, time.perf_counter() - self.begun)


@asynccontextmanager
async def watched(ping: Callable[[], Awaitable[None]]) -> AsyncIterator[Watch]:
    """Measure how long the event loop, and what `ping` calls, take to get their turn."""
    watch = Watch()

    async def tick() -> None:
        while True:
            watch.begun = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            await ping()
            watch.note()

    task = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield watch
        # A turn that has not ended counts too.
        watch.note()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def fastest(call: Callable[[], Awaitable[object]], tries: int = TRIES) -> float:
    """Return the seconds of the fastest of several calls."""
    durations = []
    for _ in range(tries):
        begun = time.perf_counter()
        await call()
        durations.append(time.perf_counter() - begun)
    return min(durations)
