"""Mutants whose fault shows only where two rules meet: a filter and a penalty, a stop string and the end, a shift."""

import asyncio
from dataclasses import replace

import numpy as np
from tests.plugins.mutants.embedding import EmbeddingMixin
from tests.plugins.mutants.engine import TinyModel
from tests.plugins.mutants.faults_text import Assembly, assembled
from tests.plugins.mutants.registry import mutant
from tests.plugins.mutants.sampler import Sampler

from puna.backend import InvalidRequestError

STOPS = "stop_strings_end_the_text_and_are_not_in_it"
BEGINNING = "text_like_the_beginning_of_a_stop_string_is_not_lost"
ORDER = "filters_apply_in_the_order_of_the_contract"
PENALTIES = "penalties_apply_before_filters"
NO_SLOT = "tokenizing_needs_no_slot"

# ---- Sampling ----


@mutant(ORDER)
class TopPBeforeTopK(Sampler):
    def draw(self, logits):
        return super().draw(self.top_p(logits))

    def top_k(self, logits):
        logits = super().top_k(logits)
        self.sampling = replace(self.sampling, top_p=1.0)
        return logits


@mutant(ORDER)
class MinPBeforeTopP(Sampler):
    def draw(self, logits):
        return super().draw(self.min_p(logits))


@mutant(PENALTIES)
class PenaltiesOnlyIfGreedy(Sampler):
    def penalise(self, logits):
        return super().penalise(logits) if self.greedy() else logits


@mutant(PENALTIES)
class PenaltiesAfterFilters(Sampler):
    def penalise(self, logits):
        return super().penalise(logits) if self.greedy() else logits

    def min_p(self, logits):
        return super().penalise(super().min_p(logits))


@mutant("each_draw_is_a_new_one")
class EachDrawIsTheFirst(Sampler):
    def draw(self, logits):
        self.random = self.generator(self.sampling.seed)
        return super().draw(logits)


@mutant("penalties_look_at_the_last_tokens")
class PenaltiesIgnoreThePrompt(Sampler):
    def __init__(self, sampling, prompt):
        super().__init__(sampling, [])


@mutant("repeat_penalty")
class NegativeLogitsAreDivided(Sampler):
    def repeated(self, logit, count):
        return logit / self.sampling.repeat_penalty


# ---- Text ----


@mutant(BEGINNING)
@assembled
class HeldTextLostAtTheEnd(Assembly):
    def finish(self):
        return ""


@mutant(STOPS)
@assembled
class OnlyFourStops(Assembly):
    def __init__(self, stops=()):
        super().__init__(tuple(stops)[:4])


@mutant(STOPS)
class ManyStopsAreRefused(TinyModel):
    def assembly(self, request):
        if len(request.stop) > 4:
            raise InvalidRequestError("there are more than four stop strings")
        return super().assembly(request)


@mutant(BEGINNING)
class StopsLookIntoThePrompt(TinyModel):
    def reason(self, run, *, ends):
        reason = super().reason(run, ends=ends)
        raw = b"".join(self.vocabulary.bytes_of(token, special=False) for token in run.tokens[: run.prompt_tokens])
        return "stop" if any(raw.endswith(stop.encode()) for stop in run.request.stop) else reason


@mutant("log_probabilities_come_with_their_text")
class LogprobsLostAtAStop(TinyModel):
    def delta(self, run, text):
        delta = super().delta(run, text)
        return replace(delta, logprobs=()) if run.text.stopped else delta


@mutant("probabilities_add_up")
class NoSpecialAlternatives(TinyModel):
    def logprob(self, run, logits, token, top):
        entry = super().logprob(run, logits, token, top + 3)
        return replace(entry, top=tuple(each for each in entry.top if each.token_id > 2)[:top])


# ---- The context ----


@mutant("a_full_context_ends_or_is_shifted")
class AFullContextIsAStop(TinyModel):
    def finish(self, run, reason):
        full = reason == "length" and run.output < run.request.max_tokens
        return super().finish(run, "stop" if full else reason)


@mutant("a_full_context_ends_or_is_shifted")
class ShiftedTokensAreCached(TinyModel):
    """The cache holds the prompt's tokens with the states that a shift has moved."""

    prompt: tuple[int, ...] = ()

    def shift(self, run):
        if run.prompt_tokens + run.output == len(run.tokens):
            self.prompt = tuple(run.tokens[: run.prompt_tokens])
        return super().shift(run)

    def keep(self, run):
        super().keep(run)
        if run.prompt_tokens + run.output != len(run.tokens):
            self.cache = [(run.request.cache_salt, list(self.prompt), run.states)]


@mutant("the_durations_are_nanoseconds")
class DurationsExchanged(TinyModel):
    def finish(self, run, reason):
        finish = super().finish(run, reason)
        return replace(finish, prompt_eval_ns=finish.eval_ns, eval_ns=finish.prompt_eval_ns)


# ---- Slots, facts, vectors ----


class TakesASlot(TinyModel):
    async def with_slot(self, result):
        await self.take_slot(0)
        self.give_slot()
        return result


@mutant(NO_SLOT)
class TokenizingTakesASlot(TakesASlot):
    async def tokenize(self, text, /, *, add_special, parse_special):
        tokens = await super().tokenize(text, add_special=add_special, parse_special=parse_special)
        return await self.with_slot(tokens)


@mutant(NO_SLOT)
class DetokenizingTakesASlot(TakesASlot):
    async def detokenize(self, tokens, /, *, special):
        return await self.with_slot(await super().detokenize(tokens, special=special))


@mutant("the_facts_make_sense")
class NoSlotsIfUndecided(TinyModel):
    @property
    def facts(self):
        return replace(super().facts, parallel=self.parallel if self.spec.parallel else 0)


@mutant("a_text_that_is_too_long_is_not_embedded")
class OnlyTheBeginningIsEmbedded(TinyModel):
    def vector(self, tokens):
        return super().vector(tokens[:16])


@mutant("the_event_loop_stays_free_while_texts_are_embedded")
class EmbeddingBlocksTheLoop(TinyModel):
    def vector(self, tokens):
        end = asyncio.get_running_loop().time() + 0.02
        while asyncio.get_running_loop().time() < end:
            np.dot(tokens, tokens)
        return EmbeddingMixin.vector(self, tokens)
