"""Mutants: log-probabilities of prompt tokens."""

from dataclasses import replace

from tests.plugins.mutants.engine import TinyModel
from tests.plugins.mutants.registry import mutant

from puna.backend import InvalidRequestError, PromptLogprobs, UnsupportedError

EACH = "each_scored_token_has_a_log_probability"
CACHED = "cached_tokens_are_scored_too"
ANSWER = "an_answer_scores_as_it_was_generated"
REFUSED = "prompts_that_cannot_be_scored_are_refused"
LEFT_OUT = "undeclared_prompt_log_probabilities_are_refused"


@mutant(EACH)
class FirstScoreMissing(TinyModel):
    def scores(self, run, start):
        return super().scores(run, start)[1:]


@mutant(EACH)
class ScoresOfAllTokens(TinyModel):
    def scores(self, run, start):
        return super().scores(run, 1)


@mutant(EACH)
class ScoresBackwards(TinyModel):
    def scores(self, run, start):
        return super().scores(run, start)[::-1]


@mutant(EACH)
class ScoresWithoutAlternatives(TinyModel):
    def prompt_logprob(self, run, index, top):
        return super().prompt_logprob(run, index, 0)


@mutant(EACH)
class ScoredAndContinued(TinyModel):
    """It generates a token, although none may follow."""

    def generate(self, request):
        more = replace(request, max_tokens=1) if request.score_from and not request.max_tokens else request
        return super().generate(more)


@mutant(CACHED)
class CachedTokensUnscored(TinyModel):
    def scores(self, run, start):
        return super().scores(run, max(start, run.cached))


@mutant(ANSWER)
class ScoresOfTheNextPlace(TinyModel):
    """The row of the token itself, not of the one before it."""

    def prompt_logprob(self, run, index, top):
        logits = self.language.logits(run.states[index + 1])
        return self.logprob(run, logits, run.tokens[index], top)


@mutant(ANSWER)
class ScoresOfTheBestToken(TinyModel):
    def prompt_logprob(self, run, index, top):
        found = super().prompt_logprob(run, index, top)
        return replace(found, logprob=found.top[0].logprob - 1 if found.top else found.logprob)


@mutant("scoring_goes_on_with_an_answer")
class ScoringEndsTheSequence(TinyModel):
    def generate(self, request):
        return super().generate(replace(request, max_tokens=0) if request.score_from else request)


@mutant(REFUSED)
class AnyStartIsTaken(TinyModel):
    def check_scored(self, request, tokens):
        pass


@mutant(REFUSED)
class ScoredPromptsNeedRoom(TinyModel):
    def scores_only(self, request):
        return False


@mutant(LEFT_OUT)
class ScoresIgnored(TinyModel):
    def scores(self, run, start):
        return []


@mutant(LEFT_OUT)
class ScoresRefusedAsInvalid(TinyModel):
    def check_scored(self, request, tokens):
        if request.score_from is not None:
            raise InvalidRequestError("no log-probabilities of a prompt")


@mutant(LEFT_OUT)
class ScoresRefusedLate(TinyModel):
    async def serve(self, request, tokens, matcher):
        async for event in super().serve(request, tokens, matcher):
            yield event
            if isinstance(event, PromptLogprobs):
                raise UnsupportedError("this engine scores no prompts")
