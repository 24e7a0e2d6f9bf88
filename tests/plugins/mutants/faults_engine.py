"""Mutants: cancellation, slots, the event loop, steps, the cache, context shift."""

import asyncio
import threading
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from tests.plugins.mutants.engine import SECONDS_PER_TOKEN, TinyModel
from tests.plugins.mutants.language_model import State
from tests.plugins.mutants.registry import OVER, mutant

FREES = "closing_a_generator_frees_its_slot"
STOPS = "cancelled_work_stops"
PREFILL = "a_long_prompt_can_be_stopped"
QUEUED = "queued_sequences_can_be_cancelled"
LOOP = "the_event_loop_stays_free"
STEPS = "steps_are_counted"
PREFIX = "a_cached_prefix_changes_nothing"
SALTS = "salts_keep_caches_apart"
SHIFT = "a_full_context_ends_or_is_shifted"
KEEP = "kept_tokens_outlive_a_shift"


class Background(TinyModel):
    """A model that does something when a sequence is cancelled before its end."""

    async def serve(self, request, tokens, matcher):
        ended = False
        try:
            async with aclosing(super().serve(request, tokens, matcher)) as events:
                async for event in events:
                    yield event
            ended = True
        finally:
            if not ended:
                self.left(request)

    def left(self, request):
        raise NotImplementedError


# ---- Work that goes on ----


@mutant(STOPS)
class TaskGoesOn(Background):
    def left(self, request):
        self.task = asyncio.ensure_future(self.work())

    async def work(self):
        for _ in range(4000):
            await asyncio.sleep(0.001)


@mutant(STOPS)
class StepsGoOn(Background):
    def left(self, request):
        self.open += 1
        loop = asyncio.get_running_loop()

        def step():
            self.steps += 1
            loop.call_later(0.004, step)

        step()


@mutant(STOPS)
class ThreadComputesOn(Background):
    def left(self, request):
        def compute():
            end = time.monotonic() + 1.5
            while time.monotonic() < end and not OVER.is_set():
                sum(range(1000))

        threading.Thread(target=compute, daemon=True).start()


@mutant(FREES)
class SlotStaysTaken(Background):
    def left(self, request):
        self.free = max(self.free - 1, 0)
        self.lost = asyncio.get_running_loop().create_future()
        self.waiting.append((-99, 0, self.lost))


@mutant(FREES)
class SlotIsFreedLate(TinyModel):
    """A cancelled sequence keeps its slot until its text would have been complete."""

    @asynccontextmanager
    async def slot(self, request):
        await self.take_slot(request.priority)
        try:
            yield
        except (GeneratorExit, asyncio.CancelledError):
            asyncio.get_running_loop().call_later(0.4, self.give_slot)
            raise
        else:
            self.give_slot()


@mutant(FREES)
class ClosingWaitsForTheEnd(TinyModel):
    """Closing a generator takes as long as what is left of its text."""

    async def serve(self, request, tokens, matcher):
        ended = False
        try:
            async with aclosing(super().serve(request, tokens, matcher)) as events:
                async for event in events:
                    yield event
            ended = True
        finally:
            if not ended:
                await asyncio.sleep(0.4)


@mutant(FREES)
class LaterRequestsAreSlow(Background):
    debt = 0.0

    def left(self, request):
        self.debt += 0.3

    async def device(self, seconds):
        debt, self.debt = self.debt, 0.0
        await asyncio.sleep(seconds + debt)


@mutant(PREFILL)
class PrefillRunsToItsEnd(TinyModel):
    async def prefill(self, run):
        rest = run.tokens[len(run.states) - 1 :]
        done = asyncio.ensure_future(asyncio.sleep(SECONDS_PER_TOKEN * len(rest)))
        try:
            await asyncio.shield(done)
        finally:
            while not done.done():
                await asyncio.wait({done})
        for token in rest:
            run.states.append(self.language.advance(run.states[-1], token))
        self.keep(run)
        return
        yield


@mutant(PREFILL)
class PrefillInOneBatch(TinyModel):
    """The device is busy with the whole prompt, although its sequence is cancelled."""

    busy_until = 0.0

    async def device(self, seconds):
        now = time.monotonic()
        if self.busy_until > now:
            await asyncio.sleep(self.busy_until - now)
        self.busy_until = max(self.busy_until, time.monotonic()) + seconds
        await asyncio.sleep(seconds)

    async def prefill(self, run):
        batch, self.spec = self.spec, replace(self.spec, batch_size=100_000)
        try:
            async for event in super().prefill(run):
                yield event
        finally:
            self.spec = batch


@mutant(QUEUED)
class CancelledWaitersTakeSlots(TinyModel):
    async def take_slot(self, priority):
        if self.free and not self.waiting:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.arrived += 1
        self.waiting.append((-priority, self.arrived, turn))
        await asyncio.shield(turn)


@mutant("a_generator_that_never_ran_holds_nothing")
class SlotTakenAtTheCall(TinyModel):
    held = 0

    def generate(self, request, /):
        self.held += 1
        return self.counted(request)

    async def counted(self, request):
        while self.held > 2 + self.open:
            await asyncio.sleep(0.01)
        try:
            async for event in super().generate(request):
                yield event
        finally:
            self.held -= 1


@mutant("a_cancelled_sequence_leaves_the_others")
class CancelHurtsTheOthers(Background):
    """A cancelled sequence leaves a token in the cache of the others."""

    hurt = 0

    def left(self, request):
        self.hurt += 1

    def decode(self, run):
        if self.hurt and run.output:
            self.hurt -= 1
            run.states[-1] = self.language.advance(run.states[-1], 99)
        return super().decode(run)


@mutant("a_cancelled_sequence_leaves_the_others")
class CancelEndsAll(Background):
    """Cancelling one sequence ends all that run."""

    cancelled = -1

    def left(self, request):
        self.cancelled = self.steps

    def reason(self, run, *, ends):
        return super().reason(run, ends=ends or 0 <= self.steps - self.cancelled < 5)


# ---- The event loop ----


@mutant(LOOP)
class TextBlocks(TinyModel):
    def decode(self, run):
        if run.output == 3:
            time.sleep(0.15)
        return super().decode(run)


@mutant(LOOP)
class LongPromptsBlock(TinyModel):
    async def device(self, seconds):
        time.sleep(seconds * 4)


@mutant(LOOP)
class TokenizingWaitsForASlot(TinyModel):
    async def tokenize(self, text, /, *, add_special, parse_special):
        while self.open > self.free + 1:
            await asyncio.sleep(0.01)
        return await super().tokenize(text, add_special=add_special, parse_special=parse_special)


# ---- Steps ----


@mutant(STEPS)
class StepStandsStill(TinyModel):
    def step(self):
        return 7 if self.open else None


@mutant(STEPS)
class StepAtRest(TinyModel):
    def step(self):
        return self.steps


@mutant(STEPS)
class StepNeverEnds(TinyModel):
    served = 0

    def step(self):
        return self.steps if self.open or self.steps > 20 else None


# ---- The cache ----


@mutant(SALTS)
class SaltIgnored(TinyModel):
    def same_salt(self, one, other):
        return True


@mutant(SALTS)
class SaltIsShortened(TinyModel):
    def same_salt(self, one, other):
        return one[:4] == other[:4]


@mutant(PREFIX)
class PrefixByLength(TinyModel):
    """Whatever is cached counts as the beginning of the prompt."""

    def common(self, one, other):
        return min(len(one), len(other))


@mutant(PREFIX)
class PrefixByItsBeginning(TinyModel):
    """Prompts that begin with the same twenty tokens count as equal."""

    def common(self, one, other):
        same = super().common(one, other)
        return min(len(one), len(other)) if same > 20 else same


@mutant(PREFIX)
class OneTokenTooManyCached(TinyModel):
    def common(self, one, other):
        return super().common(one, other) + 1


@mutant("the_cache_holds_what_was_evaluated")
class CachedBeforeEvaluated(TinyModel):
    """The whole prompt counts as cached when its first batch is evaluated."""

    async def prefill(self, run):
        states = [*run.states, *[run.states[-1]] * (len(run.tokens) + 1 - len(run.states))]
        self.cache.append((run.request.cache_salt, list(run.tokens), states))
        async for event in super().prefill(run):
            yield event


# ---- A full context ----


@mutant(SHIFT)
class ShiftIgnored(TinyModel):
    def shift(self, run):
        return False


@mutant(SHIFT)
class ShiftsAlways(TinyModel):
    def shift(self, run):
        request, run.request = run.request, replace(run.request, shift=True)
        try:
            return super().shift(run)
        finally:
            run.request = request


@mutant(SHIFT)
class EndsHalfway(TinyModel):
    def shift(self, run):
        return False

    def reason(self, run, *, ends):
        full = len(run.tokens) >= 0.8 * self.facts.context_length
        return super().reason(run, ends=ends) or ("length" if full else "")


@mutant(KEEP)
class KeepIgnored(TinyModel):
    def kept(self, run):
        return 1


@mutant(KEEP)
class KeepsThePromptAlways(TinyModel):
    def kept(self, run):
        return run.prompt_tokens


@mutant(KEEP)
class KeepMinusOneIsNone(TinyModel):
    def kept(self, run):
        return max(run.request.keep_tokens, 0)


@mutant("a_full_context_ends_or_is_shifted")
class ShiftForgetsAll(TinyModel):
    """The text before the shift depends on whether one is permitted."""

    def decode(self, run):
        if run.request.shift and run.output == 5:
            run.states[-1] = State()
        return super().decode(run)
