"""Mutants: sampling parameters and log-probabilities."""

import math
import random
from dataclasses import replace

import numpy as np
from tests.plugins.mutants.engine import TinyModel
from tests.plugins.mutants.registry import mutant
from tests.plugins.mutants.sampler import Sampler, only, reach, softmax

from puna.backend import UnsupportedError

SEEDS = "seeds_give_different_texts"
SAME = "the_same_again_gives_the_same"
TEMPERATURE = "temperature_follows_the_distribution"
MODELS = "temperature_one_is_the_models_distribution"
TOP_K = "top_k_keeps_the_best_tokens"
TOP_P = "top_p_keeps_the_smallest_set"
MIN_P = "min_p_keeps_tokens_near_the_best"
TYPICAL_P = "typical_p_keeps_typical_tokens"
BIAS = "a_bias_is_obeyed_or_refused"
WINDOW = "penalties_look_at_the_last_tokens"
EVERY = "every_token_has_a_log_probability"
ENTRY = "entries_describe_their_tokens"
OWN = "a_tokens_entry_is_its_own"
BEFORE = "log_probabilities_are_those_of_the_model"

# ---- Seeds ----


@mutant(SEEDS)
class OneSeed(Sampler):
    def generator(self, seed):
        return random.Random(1)


@mutant(SAME)
class SeedIgnored(Sampler):
    def generator(self, seed):
        return random.Random()


@mutant(SAME)
class SeedZeroIsRandom(Sampler):
    def generator(self, seed):
        return random.Random(seed or None)


@mutant(SEEDS)
class SeedOfEightBits(Sampler):
    def generator(self, seed):
        return random.Random(None if seed is None else seed & 255)


@mutant(SEEDS)
class NoSeedIsZero(Sampler):
    def generator(self, seed):
        return random.Random(seed or 0)


@mutant(SAME)
class GreedyDraws(Sampler):
    """Temperature 0 is a small one, with other draws each time."""

    def greedy(self):
        return False

    def generator(self, seed):
        return random.Random() if self.sampling.temperature == 0 else super().generator(seed)

    def temperature(self, logits):
        return logits / (self.sampling.temperature or 0.7)


# ---- Temperature ----


@mutant("temperature_has_an_effect")
class TemperatureIgnored(Sampler):
    def greedy(self):
        return True


@mutant(TEMPERATURE)
class TemperatureAlwaysOne(Sampler):
    def temperature(self, logits):
        return logits


@mutant(TEMPERATURE)
class TemperatureMultiplies(Sampler):
    def temperature(self, logits):
        return logits * self.sampling.temperature


@mutant(TEMPERATURE)
class TemperatureSquared(Sampler):
    def temperature(self, logits):
        return logits / self.sampling.temperature**2


@mutant(TEMPERATURE)
class TemperatureCapped(Sampler):
    def temperature(self, logits):
        return logits / min(self.sampling.temperature, 0.8)


@mutant(TOP_P)
class TemperatureBeforeTheFilters(Sampler):
    def draw(self, logits):
        for step in (self.temperature, self.top_k, self.typical_p, self.top_p, self.min_p):
            logits = step(logits)
        return self.random.choices(range(len(logits)), softmax(logits).tolist())[0]


@mutant(MODELS)
class DrawsTooFlat(Sampler):
    def temperature(self, logits):
        return logits / (1.6 * self.sampling.temperature)


# ---- Filters ----


@mutant(TOP_K)
class TopKIgnored(Sampler):
    def top_k(self, logits):
        return logits


@mutant(TOP_K)
class TopKKeepsOneMore(Sampler):
    def top_k(self, logits):
        keep = self.sampling.top_k
        return only(logits, np.argsort(-logits)[: keep + 1]) if keep else logits


@mutant(TOP_K)
class TopKKeepsTheWorst(Sampler):
    def top_k(self, logits):
        keep = self.sampling.top_k
        return only(logits, np.argsort(logits)[:keep]) if keep else logits


@mutant(TOP_K)
class TopKZeroIsForty(Sampler):
    def top_k(self, logits):
        return only(logits, np.argsort(-logits)[: self.sampling.top_k or 40])


@mutant("temperature_has_an_effect")
class TopKZeroIsOne(Sampler):
    def top_k(self, logits):
        return only(logits, np.argsort(-logits)[: self.sampling.top_k or 1])


@mutant(TOP_P)
class TopPIgnored(Sampler):
    def top_p(self, logits):
        return logits


@mutant(TOP_P)
class TopPLeavesTheLastOut(Sampler):
    """Keeps the tokens whose sum is still below top_p."""

    def top_p(self, logits):
        shares = softmax(logits)
        order = np.argsort(-shares)
        count = int(np.searchsorted(np.cumsum(shares[order]), self.sampling.top_p))
        return only(logits, order[: max(count, 1)])


@mutant(TOP_P)
class TopPTakesAnyTokens(Sampler):
    def top_p(self, logits):
        if self.sampling.top_p >= 1:
            return logits
        shares = softmax(logits)
        return only(logits, reach(np.arange(len(logits)), shares, self.sampling.top_p))


@mutant(MIN_P)
class MinPIgnored(Sampler):
    def min_p(self, logits):
        return logits


@mutant(MIN_P)
class MinPIsAbsolute(Sampler):
    """Compares with min_p itself, not with its share of the largest probability."""

    def min_p(self, logits):
        shares = softmax(logits)
        return only(logits, np.flatnonzero(shares >= min(self.sampling.min_p, shares.max())))


@mutant(TYPICAL_P)
class TypicalPIgnored(Sampler):
    def typical_p(self, logits):
        return logits


@mutant(TYPICAL_P)
class TypicalPIsTopP(Sampler):
    def typical_p(self, logits):
        if self.sampling.typical_p >= 1:
            return logits
        shares = softmax(logits)
        return only(logits, reach(np.argsort(shares), shares, self.sampling.typical_p))


# ---- Biases and penalties ----


@mutant(BIAS)
class BiasIgnored(Sampler):
    def bias(self, logits):
        return logits


@mutant(BIAS)
class BiasOfTheNextToken(Sampler):
    def bias(self, logits):
        for token, bias in self.sampling.logit_bias.items():
            logits[(token + 1) % len(logits)] += bias
        return logits


@mutant(BIAS)
class BiasSubtracted(Sampler):
    def bias(self, logits):
        for token, bias in self.sampling.logit_bias.items():
            logits[token] -= bias
        return logits


@mutant(BIAS)
class BiasOnlyForTheFirstToken(Sampler):
    def bias(self, logits):
        logits = super().bias(logits)
        self.sampling = replace(self.sampling, logit_bias={})
        return logits


@mutant(BIAS)
class OnlyOneBias(Sampler):
    def bias(self, logits):
        for token, bias in list(self.sampling.logit_bias.items())[-1:]:
            logits[token] += bias
        return logits


@mutant(BIAS)
class BiasIsABan(Sampler):
    """Any bias below a hundred counts as a ban, as if only -100 and 100 were used."""

    def bias(self, logits):
        for token, bias in self.sampling.logit_bias.items():
            logits[token] += bias if abs(bias) >= 100 else -1000
        return logits


@mutant(BIAS)
class BiasMultiplies(Sampler):
    def bias(self, logits):
        for token, bias in self.sampling.logit_bias.items():
            logits[token] = abs(logits[token]) * bias
        return logits


@mutant("repeat_penalty")
class RepeatPenaltyIgnored(Sampler):
    def repeated(self, logit, count):
        return logit


@mutant("repeat_penalty")
class RepeatPenaltyCompounds(Sampler):
    def repeated(self, logit, count):
        penalty = self.sampling.repeat_penalty**count
        return logit / penalty if logit > 0 else logit * penalty


@mutant("repeat_penalty")
class RepeatPenaltyMultiplies(Sampler):
    def repeated(self, logit, count):
        return logit * self.sampling.repeat_penalty


@mutant("repeat_penalty")
class RepeatPenaltySubtracts(Sampler):
    def repeated(self, logit, count):
        return logit - (self.sampling.repeat_penalty - 1)


@mutant("presence_penalty")
class PresencePenaltyIgnored(Sampler):
    def presence(self, count):
        return 0.0


@mutant("presence_penalty")
class PresencePenaltyCounts(Sampler):
    def presence(self, count):
        return self.sampling.presence_penalty * count


@mutant("presence_penalty")
class PresencePenaltyRewards(Sampler):
    def presence(self, count):
        return -self.sampling.presence_penalty


@mutant("frequency_penalty")
class FrequencyPenaltyIgnored(Sampler):
    def frequency(self, count):
        return 0.0


@mutant("frequency_penalty")
class FrequencyPenaltyOnce(Sampler):
    def frequency(self, count):
        return self.sampling.frequency_penalty


@mutant(WINDOW)
class WindowIgnored(Sampler):
    def window(self):
        return self.recent


@mutant(WINDOW)
class EmptyWindowIsAll(Sampler):
    """The slice [-0:] is the whole list."""

    def window(self):
        last = self.sampling.repeat_last_n
        return self.recent if last < 0 else self.recent[-last:]


@mutant(WINDOW)
class UnlimitedWindowIsNone(Sampler):
    def window(self):
        last = self.sampling.repeat_last_n
        return self.recent[-last:] if last > 0 else []


@mutant("presence_penalty")
class PenaltiesLookAtThePromptOnly(Sampler):
    def __init__(self, sampling, prompt):
        super().__init__(sampling, prompt)
        self.prompt = list(prompt)

    def window(self):
        return self.prompt


# ---- Log-probabilities ----


@mutant(MODELS)
class BaseTwo(TinyModel):
    def entry(self, values, token, top=()):
        entry = super().entry(values, token, top)
        return replace(entry, logprob=entry.logprob / math.log(2))


@mutant("probabilities_add_up")
class BaseTen(TinyModel):
    def entry(self, values, token, top=()):
        entry = super().entry(values, token, top)
        return replace(entry, logprob=entry.logprob / math.log(10))


@mutant(ENTRY)
class Probabilities(TinyModel):
    def entry(self, values, token, top=()):
        entry = super().entry(values, token, top)
        return replace(entry, logprob=math.exp(entry.logprob))


@mutant(ENTRY)
class RawLogits(TinyModel):
    def log_softmax(self, logits):
        return logits.astype(np.float64)


@mutant("probabilities_add_up")
class NormalisedOverTheAlternatives(TinyModel):
    def log_softmax(self, logits):
        values = super().log_softmax(logits)
        return values + 0.3


@mutant(BEFORE)
class AfterTemperature(TinyModel):
    def logprob(self, run, logits, token, top):
        return super().logprob(run, logits / (run.request.sampling.temperature or 1), token, top)


@mutant(BEFORE)
class AfterTheFilters(TinyModel):
    def logprob(self, run, logits, token, top):
        if run.request.sampling.top_k == 1:
            logits = np.where(logits == logits.max(), logits, logits - 30)
        return super().logprob(run, logits, token, top)


@mutant(OWN)
class LogprobOfTheBest(TinyModel):
    def logprob(self, run, logits, token, top):
        entry = super().logprob(run, logits, token, top)
        return replace(entry, logprob=float(self.log_softmax(logits).max()))


@mutant("the_greedy_token_is_the_most_probable")
class LogprobOfAnother(TinyModel):
    def logprob(self, run, logits, token, top):
        entry = super().logprob(run, logits, token, top)
        return replace(entry, logprob=float(self.log_softmax(logits)[token - 1]))


@mutant("the_greedy_token_is_the_most_probable")
class LogprobsOfTheNextPosition(TinyModel):
    def logprob(self, run, logits, token, top):
        following = self.language.logits(self.language.advance(run.states[-1], token))
        return super().logprob(run, following, token, top)


@mutant(EVERY)
class OnlyTheFirstLogprob(TinyModel):
    def delta(self, run, text):
        delta = super().delta(run, text)
        seen, run.seen = getattr(run, "seen", False), True
        return replace(delta, logprobs=()) if seen else delta


@mutant(EVERY)
class LogprobsOfHeldTextLost(TinyModel):
    """Only the last token of a delta has an entry."""

    def delta(self, run, text):
        delta = super().delta(run, text)
        return replace(delta, logprobs=delta.logprobs[-1:])


@mutant("undeclared_log_probabilities_are_refused")
class LogprobsLeftOut(TinyModel):
    def delta(self, run, text):
        return replace(super().delta(run, text), logprobs=())


@mutant("undeclared_log_probabilities_are_refused")
class LogprobsRefusedLate(TinyModel):
    def finish(self, run, reason):
        if run.request.top_logprobs is not None:
            raise UnsupportedError("this engine has no log-probabilities")
        return super().finish(run, reason)


@mutant("log_probabilities_come_with_their_text")
class LogprobsComeLate(TinyModel):
    def delta(self, run, text):
        delta = super().delta(run, text)
        late, run.late = getattr(run, "late", ()), delta.logprobs
        return replace(delta, logprobs=late)


@mutant(ENTRY)
class AlternativesUnsorted(TinyModel):
    def logprob(self, run, logits, token, top):
        entry = super().logprob(run, logits, token, top)
        return replace(entry, top=entry.top[::-1])


@mutant(ENTRY)
class OneAlternativeTooFew(TinyModel):
    def logprob(self, run, logits, token, top):
        return super().logprob(run, logits, token, max(top - 1, 0))


@mutant(ENTRY)
class AlternativesWithoutTheBest(TinyModel):
    """The chosen token is left out of its own alternatives, and the list is filled up with it."""

    def logprob(self, run, logits, token, top):
        entry = super().logprob(run, logits, token, top)
        return replace(entry, top=entry.top[:1] * len(entry.top))


@mutant(ENTRY)
class RawIsText(TinyModel):
    """The bytes of half a character are replaced."""

    def entry(self, values, token, top=()):
        entry = super().entry(values, token, top)
        return replace(entry, raw=entry.raw.decode("utf-8", "replace").encode())


@mutant(ENTRY)
class IdsOffByOne(TinyModel):
    def entry(self, values, token, top=()):
        entry = super().entry(values, token, top)
        return replace(entry, token_id=entry.token_id + 1)


@mutant(ENTRY)
class InfiniteLogprobs(TinyModel):
    def entry(self, values, token, top=()):
        entry = super().entry(values, token, top)
        return replace(entry, logprob=entry.logprob if entry.logprob > -3 else -math.inf)


@mutant(EVERY)
class LogprobsChangeTheText(TinyModel):
    def sampler(self, request, tokens):
        if request.top_logprobs:
            tokens = tokens[:-1]
            request = replace(request, sampling=replace(request.sampling, presence_penalty=9.0))
        return super().sampler(request, tokens)


@mutant("an_answer_can_be_continued_by_its_tokens")
class OutputIsNotEvaluated(TinyModel):
    """The last token is fed to the model twice once in a while."""

    def decode(self, run):
        answer = super().decode(run)
        if run.output == 4:
            run.states[-1] = self.language.advance(run.states[-1], run.tokens[-1])
        return answer
