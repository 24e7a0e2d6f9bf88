"""Mutants: counts, the order of events, several sequences, prompts."""

import asyncio
from dataclasses import replace

from tests.plugins.mutants.engine import TinyModel
from tests.plugins.mutants.registry import mutant
from tests.plugins.mutants.vocabulary import BOS

from puna.backend import (
    BackendError,
    Finish,
    InvalidRequestError,
    Prefill,
    PromptTooLongError,
    TextDelta,
    UnsupportedError,
)

STOPS = "stop_strings_end_the_text_and_are_not_in_it"
CHARACTERS = "no_delta_has_half_a_character"
LIMIT = "a_limit_is_kept"
CONTINUED = "a_prompt_is_continued"
SAME = "the_same_again_gives_the_same"
APART = "more_sequences_than_slots_all_finish"
TOO_LONG = "a_prompt_that_is_too_long_is_refused_with_both_numbers"

# ---- Counts ----


@mutant(CONTINUED)
class MoreCachedThanThere(TinyModel):
    def finish(self, run, reason):
        return replace(super().finish(run, reason), cached_prompt_tokens=run.prompt_tokens + 1)


@mutant("a_cached_prefix_changes_nothing")
class EachDeltaCountsCachedTokens(TinyModel):
    def delta(self, run, text):
        return replace(super().delta(run, text), cached_prompt_tokens=run.cached)


@mutant("a_cached_prefix_changes_nothing")
class FirstDeltaCountsOtherCachedTokens(TinyModel):
    def delta(self, run, text):
        delta = super().delta(run, text)
        return replace(delta, cached_prompt_tokens=delta.cached_prompt_tokens // 2)


@mutant(CONTINUED)
class NegativeDuration(TinyModel):
    def finish(self, run, reason):
        return replace(super().finish(run, reason), eval_ns=-5)


@mutant(CONTINUED)
class HugeDuration(TinyModel):
    """A point in time instead of a duration."""

    def finish(self, run, reason):
        return replace(super().finish(run, reason), prompt_eval_ns=run.begun)


@mutant("the_durations_are_nanoseconds")
class Microseconds(TinyModel):
    def finish(self, run, reason):
        finish = super().finish(run, reason)
        return replace(finish, prompt_eval_ns=finish.prompt_eval_ns // 1000, eval_ns=finish.eval_ns // 1000)


@mutant(CONTINUED)
class MoreDraftsAcceptedThanMade(TinyModel):
    def finish(self, run, reason):
        return replace(super().finish(run, reason), draft_tokens=1, accepted_draft_tokens=2)


@mutant("tokens_do_as_well_as_text")
class PromptCountWithoutBos(TinyModel):
    def finish(self, run, reason):
        return replace(super().finish(run, reason), prompt_tokens=run.prompt_tokens - 1, cached_prompt_tokens=0)


@mutant("a_cached_prefix_changes_nothing")
class CachedTokensNotInTheCount(TinyModel):
    def finish(self, run, reason):
        return replace(
            super().finish(run, reason), prompt_tokens=run.prompt_tokens - run.cached, cached_prompt_tokens=0
        )


@mutant(LIMIT)
class CountsDeltas(TinyModel):
    """Counts characters of the text instead of tokens."""

    def delta(self, run, text):
        run.characters = getattr(run, "characters", 0) + len(text)
        return super().delta(run, text)

    def finish(self, run, reason):
        counted = min(getattr(run, "characters", 0) // 2, run.request.max_tokens)
        return replace(super().finish(run, reason), output_tokens=counted)


# ---- Events ----


class Events(TinyModel):
    """A model whose events its subclasses change."""

    async def serve(self, request, tokens, matcher):
        async for event in super().serve(request, tokens, matcher):
            for changed in self.change(event):
                yield changed

    def change(self, event):
        return [event]


@mutant(CONTINUED)
class TwoFinishes(Events):
    def change(self, event):
        return [event, event] if isinstance(event, Finish) else [event]


@mutant(CONTINUED)
class NoFinish(Events):
    def change(self, event):
        return [] if isinstance(event, Finish) else [event]


@mutant(CONTINUED)
class DeltaAfterFinish(Events):
    def change(self, event):
        return [event, TextDelta("x")] if isinstance(event, Finish) else [event]


@mutant(CONTINUED)
class EmptyDeltas(Events):
    def change(self, event):
        return [TextDelta(""), event]


@mutant(CONTINUED)
class LatePrefill(Events):
    def change(self, event):
        return [event, Prefill(1, 2)] if isinstance(event, TextDelta) else [event]


@mutant(CONTINUED)
class PrefillBeyondItsTotal(Events):
    def change(self, event):
        return [Prefill(event.total_tokens + 1, event.total_tokens)] if isinstance(event, Prefill) else [event]


@mutant("the_cache_holds_what_was_evaluated")
class PrefillGoesBackwards(Events):
    def change(self, event):
        return [event, Prefill(event.done_tokens - 1, event.total_tokens)] if isinstance(event, Prefill) else [event]


@mutant(CONTINUED)
class UnknownReason(Events):
    def change(self, event):
        return [replace(event, reason="eos")] if isinstance(event, Finish) else [event]


@mutant(CONTINUED)
class LoneSurrogates(Events):
    def change(self, event):
        return [TextDelta("\ud83d"), event] if isinstance(event, TextDelta) else [event]


@mutant("text_comes_while_it_is_generated")
class AllTextAtTheEnd(Events):
    def __init__(self, *values):
        super().__init__(*values)
        self.kept = ""

    def change(self, event):
        if isinstance(event, TextDelta):
            self.kept += event.text
            return []
        if isinstance(event, Finish) and self.kept:
            text, self.kept = self.kept, ""
            return [TextDelta(text), event]
        return [event]


@mutant("log_probabilities_come_with_their_text", "words")
class DeltasAreStripped(Events):
    def change(self, event):
        if isinstance(event, TextDelta):
            return [replace(event, text=event.text.rstrip())] if event.text.strip() else []
        return [event]


@mutant("every_token_has_a_log_probability", "bytes")
class SpacesAreDropped(Events):
    def change(self, event):
        return [event] if not isinstance(event, TextDelta) or event.text.strip() else []


@mutant("a_slow_reader_loses_nothing")
class SmallQueue(TinyModel):
    """Events that nobody has taken are overwritten after five milliseconds."""

    async def generate(self, request, /):
        events, ended = [], asyncio.Event()

        async def fill():
            async for event in super(SmallQueue, self).generate(request):
                if len(events) >= 4 and not isinstance(event, Finish):
                    events.pop(0)
                events.append(event)
                await asyncio.sleep(0)
            ended.set()

        task = asyncio.ensure_future(fill())
        try:
            while events or not ended.is_set():
                if events:
                    yield events.pop(0)
                await asyncio.sleep(0)
                if task.done():
                    task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


# ---- Several sequences ----


@mutant(APART)
class OthersText(TinyModel):
    """With two sequences in a batch, one gets the text of the other."""

    last = ""

    def delta(self, run, text):
        delta = super().delta(run, text)
        if self.open > 1 and run.output % 5 == 0:
            delta = replace(delta, text=self.last or delta.text)
        self.last = delta.text
        return delta


@mutant(APART)
class OthersContext(TinyModel):
    """The state of one sequence is that of the last one."""

    latest = None

    def decode(self, run):
        if self.latest is not None and self.latest is not run and run.output == 3:
            run.states[-1] = self.latest.states[-1]
        self.latest = run
        return super().decode(run)

    def keep(self, run):
        if self.latest is run and run.output:
            self.latest = None


@mutant(APART)
class OneSamplerForAll(TinyModel):
    """All sequences draw from one generator, so that they change each other's draws."""

    def sampler(self, request, tokens):
        sampler = super().sampler(request, tokens)
        if self.open > 1 and getattr(self, "shared", None) is not None:
            sampler.random = self.shared
        self.shared = sampler.random
        return sampler


@mutant(APART)
class StopOfAnother(TinyModel):
    """The stop strings of a sequence hold for all that run."""

    stops = ()

    def assembly(self, request):
        self.stops = request.stop if request.stop or self.open == 1 else self.stops
        return self.assembly_class(self.stops)


@mutant("slots_run_at_once")
class OneAfterTheOther(TinyModel):
    """Says that it runs two sequences, and runs one."""

    def __init__(self, *values):
        super().__init__(*values)
        self.free = 1


@mutant("a_failure_concerns_one_sequence")
class FailureFailsAll(TinyModel):
    failing = False

    def prompt_tokens(self, request):
        try:
            return super().prompt_tokens(request)
        except InvalidRequestError:
            self.failing = True
            asyncio.get_running_loop().call_later(0.05, setattr, self, "failing", False)
            raise

    def decode(self, run):
        if self.failing:
            raise InvalidRequestError("the batch has failed")
        return super().decode(run)


@mutant("a_failure_concerns_one_sequence")
class FailureTakesASlot(TinyModel):
    def prompt_tokens(self, request):
        try:
            return super().prompt_tokens(request)
        except InvalidRequestError:
            self.free = max(self.free - 1, 0)
            raise


# ---- Prompts ----


@mutant("tokens_do_as_well_as_text")
class BosTwice(TinyModel):
    def prompt_tokens(self, request):
        tokens = super().prompt_tokens(request)
        return [BOS, *tokens] if isinstance(request.prompt, str) else tokens


@mutant("tokens_do_as_well_as_text")
class BosForTokens(TinyModel):
    def prompt_tokens(self, request):
        tokens = super().prompt_tokens(request)
        return tokens if isinstance(request.prompt, str) else [BOS, *tokens]


@mutant("tokens_do_as_well_as_text")
class HiddenBos(TinyModel):
    """BOS is there twice, but counted once."""

    def prompt_tokens(self, request):
        tokens = super().prompt_tokens(request)
        return [BOS, *tokens] if isinstance(request.prompt, str) else tokens

    def finish(self, run, reason):
        finish = super().finish(run, reason)
        count = finish.prompt_tokens - isinstance(run.request.prompt, str)
        return replace(finish, prompt_tokens=count, cached_prompt_tokens=0)


@mutant("tokens_do_as_well_as_text")
class NoBos(TinyModel):
    def prompt_tokens(self, request):
        tokens = super().prompt_tokens(request)
        return tokens[1:] if isinstance(request.prompt, str) else tokens


@mutant("tokens_do_as_well_as_text")
class SpecialTokensOfPromptsAreText(TinyModel):
    def prompt_tokens(self, request):
        if isinstance(request.prompt, str):
            return self.vocabulary.tokenize(request.prompt, add_special=True, parse_special=False)
        return super().prompt_tokens(request)


@mutant("tokens_do_as_well_as_text")
class TokensAsText(TinyModel):
    """Token ids are written out and tokenized again."""

    def prompt_tokens(self, request):
        tokens = super().prompt_tokens(request)
        if isinstance(request.prompt, str):
            return tokens
        text = b"".join(self.vocabulary.bytes_of(token, special=True) for token in tokens).decode("utf-8", "replace")
        return self.vocabulary.tokenize(text, add_special=True, parse_special=False)


@mutant("tokens_do_as_well_as_text")
class TokensAreTakenForBytes(TinyModel):
    def prompt_tokens(self, request):
        tokens = super().prompt_tokens(request)
        return tokens if isinstance(request.prompt, str) else [token % 256 + 3 for token in tokens]


@mutant("what_is_no_token_is_refused")
class AnyTokenIsTaken(TinyModel):
    def prompt_tokens(self, request):
        if isinstance(request.prompt, str):
            return super().prompt_tokens(request)
        return [token % len(self.vocabulary) for token in request.prompt]


@mutant("what_is_no_token_is_refused")
class OddTokensBreak(TinyModel):
    """An id outside the vocabulary raises what an index raises."""

    async def detokenize(self, tokens, /, *, special):
        return [self.vocabulary.raw[token] if token >= 0 else self.fail() for token in tokens]

    def fail(self):
        raise UnsupportedError("no such token")


@mutant(TOO_LONG)
class LongPromptsAreCut(TinyModel):
    def prompt_tokens(self, request):
        return super().prompt_tokens(request)[-(self.facts.context_length - 1) :]


@mutant(TOO_LONG)
class LongPromptsAreServed(TinyModel):
    def check_length(self, tokens):
        pass


@mutant(TOO_LONG)
class NumbersSwapped(TinyModel):
    def check_length(self, tokens):
        try:
            super().check_length(tokens)
        except PromptTooLongError as error:
            raise PromptTooLongError(error.context_length, error.prompt_tokens) from error


@mutant(TOO_LONG)
class CountsCharacters(TinyModel):
    def check_length(self, tokens):
        if len(tokens) >= self.facts.context_length:
            raise PromptTooLongError(4 * len(tokens), self.facts.context_length)


@mutant(TOO_LONG)
class LongPromptIsInvalid(TinyModel):
    def check_length(self, tokens):
        if len(tokens) >= self.facts.context_length:
            raise InvalidRequestError("the prompt is too long")


@mutant(TOO_LONG)
class RefusesWhatFits(TinyModel):
    """The limit is half of what the error names."""

    def check_length(self, tokens):
        if len(tokens) > self.facts.context_length // 2:
            raise PromptTooLongError(len(tokens), self.facts.context_length)


@mutant("the_prompt_decides_the_text")
class PromptReversed(TinyModel):
    def prompt_tokens(self, request):
        tokens = super().prompt_tokens(request)
        return tokens if isinstance(request.prompt, str) else tokens[::-1]


@mutant("images_are_looked_at_or_refused")
class ImagesIgnored(TinyModel):
    def check_media(self, request):
        pass


@mutant("images_are_looked_at_or_refused")
class ImagesRefusedLate(TinyModel):
    def check_media(self, request):
        self.late = bool(request.media)

    async def serve(self, request, tokens, matcher):
        async for event in super().serve(request, tokens, matcher):
            if self.late and isinstance(event, Finish):
                raise UnsupportedError("this model takes no images")
            yield event


@mutant(SAME)
class Forgetful(TinyModel):
    """Each request changes what the next one says."""

    served = 0

    def keep(self, run):
        super().keep(run)
        self.served += 1

    def prompt_tokens(self, request):
        tokens = super().prompt_tokens(request)
        return tokens if self.served % 7 else [*tokens[:-1], tokens[-1] ^ 1]


@mutant("what_is_not_declared_is_ignored_or_refused")
class RefusesPenalties(TinyModel):
    def sampler(self, request, tokens):
        if request.sampling.presence_penalty == 0.5:
            raise BackendError("this engine has no presence penalty")
        return super().sampler(request, tokens)
