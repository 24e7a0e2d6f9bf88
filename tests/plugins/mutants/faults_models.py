"""Mutants: loading, facts, constraints, tokens, vectors and ranks."""

import asyncio
import math
import threading
import time
from dataclasses import replace
from pathlib import Path

from tests.plugins.mutants.engine import TinyBackend, TinyModel, vocabulary
from tests.plugins.mutants.registry import OVER, mutant
from tests.plugins.mutants.vocabulary import BOS, EOS, SPECIAL

from puna.backend import (
    DocumentScores,
    Embedding,
    InvalidRequestError,
    PromptTooLongError,
    TextDelta,
    UnsupportedError,
)

PROGRESS = "loading_tells_how_far_it_is"
MISSING = "a_file_that_is_not_there_is_refused"
JUNK = "a_file_that_is_no_model_is_refused"
CANCELLED = "a_load_can_be_cancelled"
FREED = "freeing_a_model_leaves_nothing"
REFUSES = "a_freed_model_refuses_calls"
FACTS = "the_facts_make_sense"
VOCABULARY = "the_facts_of_the_vocabulary_are_true"
ENFORCED = "a_constraint_is_enforced_or_refused"
NONSENSE = "a_constraint_that_makes_no_sense_is_refused"
ROUND_TRIP = "tokens_come_back_as_text"
RECOGNISED = "special_tokens_are_recognised_only_if_asked_for"
ORDER = "texts_are_embedded_in_order_or_refused"
RAW = "raw_vectors_are_not_normalised"
LONG = "a_text_that_is_too_long_is_not_embedded"
RANKS = "documents_are_ranked_or_refused"

# ---- Loading ----


@mutant(PROGRESS)
class ProgressInPercent(TinyBackend):
    async def load(self, spec, report, /):
        return await super().load(spec, lambda fraction: report(100 * fraction))


@mutant(PROGRESS)
class ProgressBackwards(TinyBackend):
    async def load(self, spec, report, /):
        return await super().load(spec, lambda fraction: report(1 - fraction))


@mutant(PROGRESS)
class SilentLoad(TinyBackend):
    """Blocks the event loop and reports nothing."""

    async def load(self, spec, report, /):
        time.sleep(0.3)
        return await super().load(spec, report)


@mutant(MISSING)
class MissingFileRaisesOSError(TinyBackend):
    async def load(self, spec, report, /):
        Path(spec.path).read_bytes()
        return await super().load(spec, report)


@mutant(MISSING)
class MissingFileLoads(TinyBackend):
    async def load(self, spec, report, /):
        if not Path(spec.path).exists():
            return TinyModel(spec, vocabulary("bytes"))
        return await super().load(spec, report)


@mutant(MISSING)
class MissingFileIsUnsupported(TinyBackend):
    async def load(self, spec, report, /):
        if not Path(spec.path).exists():
            raise UnsupportedError("no such file")
        return await super().load(spec, report)


@mutant(MISSING)
class RefusalWithoutText(TinyBackend):
    async def load(self, spec, report, /):
        if not Path(spec.path).exists():
            raise InvalidRequestError
        return await super().load(spec, report)


@mutant(JUNK)
class JunkRaisesValueError(TinyBackend):
    async def load(self, spec, report, /):
        if Path(spec.path).exists() and not Path(spec.path).read_bytes().startswith(b"tiny"):
            raise ValueError("wrong magic")
        return await super().load(spec, report)


@mutant(CANCELLED)
class CancelledLoadLeavesAThread(TinyBackend):
    async def load(self, spec, report, /):
        threading.Thread(target=OVER.wait, args=(3,), daemon=True).start()
        return await super().load(spec, report)


@mutant(CANCELLED)
class CancelledLoadLeavesAFile(TinyBackend):
    left = []

    async def load(self, spec, report, /):
        file = Path(spec.path).open("rb")
        self.left.append(file)
        model = await super().load(spec, report)
        self.left.remove(file)
        file.close()
        return model


@mutant(CANCELLED)
class CancelledLoadComputesOn(TinyBackend):
    """The load computes on in a thread that nobody stops."""

    async def load(self, spec, report, /):
        ended = threading.Event()

        def compute():
            end = time.monotonic() + 2
            while time.monotonic() < end and not ended.is_set() and not OVER.is_set():
                sum(range(1000))

        threading.Thread(target=compute, daemon=True).start()
        model = await super().load(spec, report)
        ended.set()
        return model


@mutant(CANCELLED)
class LoadCannotBeCancelled(TinyBackend):
    async def load(self, spec, report, /):
        loading = asyncio.ensure_future(super().load(spec, report))
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            await asyncio.sleep(1.2)
            raise


class Threaded(TinyModel):
    """A model with a thread."""

    def __init__(self, *values):
        super().__init__(*values)
        threading.Thread(target=OVER.wait, args=(4,), daemon=True).start()


@mutant(FREED)
class ThreadOutlivesTheModel(Threaded):
    pass


@mutant(FREED)
class FileOutlivesTheModel(TinyModel):
    files = []

    def __init__(self, spec, *values):
        super().__init__(spec, *values)
        self.files.append(Path(spec.path).open("rb"))


@mutant(FREED)
class TaskOutlivesTheModel(TinyModel):
    def __init__(self, *values):
        super().__init__(*values)
        self.task = asyncio.ensure_future(asyncio.sleep(5))


@mutant(FREED)
class FreeingTakesLong(TinyModel):
    async def aclose(self):
        await asyncio.sleep(3)


class Freed(TinyModel):
    """A model that loses a part of itself with `aclose`."""

    part = ""

    async def aclose(self):
        self.__dict__.pop(self.part, None)


@mutant(REFUSES)
class FreesTwice(TinyModel):
    async def aclose(self):
        del self.language


@mutant(REFUSES)
class GeneratesWithoutItsModel(Freed):
    part = "language"


@mutant(REFUSES)
class TokenizesWithoutItsVocabulary(Freed):
    part = "vocabulary"


@mutant(REFUSES)
class WorksOnWhenFreed(TinyModel):
    async def aclose(self):
        self.open = 1


@mutant("two_models_are_independent")
class ModelsShareSlots(TinyModel):
    """The state of the last loaded model is that of all."""

    newest = None

    def __init__(self, *values):
        super().__init__(*values)
        type(self).newest = self

    def decode(self, run):
        if type(self).newest is not self:
            run.states[-1] = self.language.advance(run.states[-1], 99)
        return super().decode(run)


@mutant("two_models_are_independent")
class FreeingOneFreesAll(TinyModel):
    freed = False

    async def aclose(self):
        type(self).freed = True

    def decode(self, run):
        if type(self).freed and run.output == 4:
            raise InvalidRequestError("the library was unloaded")
        return super().decode(run)


# ---- Facts ----


class Facts(TinyModel):
    """A model whose facts its subclasses change."""

    changes = {}

    @property
    def facts(self):
        return replace(super().facts, **self.changes)


@mutant(FACTS)
class ContextLongerThanAsked(Facts):
    changes = {"context_length": 8192}


@mutant(FACTS)
class MoreOnGpuThanThere(Facts):
    changes = {"vram_bytes": 1 << 40}


@mutant(FACTS)
class NoSlots(Facts):
    changes = {"parallel": 0}


@mutant(FACTS)
class FactsChange(TinyModel):
    @property
    def facts(self):
        return replace(super().facts, size_bytes=(1 << 20) + self.steps)


@mutant("a_prompt_that_is_too_long_is_refused_with_both_numbers")
class ContextShorterThanSaid(TinyModel):
    def check_length(self, tokens):
        if len(tokens) >= 100:
            raise PromptTooLongError(len(tokens), 100 + len(tokens) // 2)


@mutant("slots_run_at_once")
class MoreSlotsThanThere(Facts):
    changes = {"parallel": 4}


@mutant(VOCABULARY)
class BosIsDenied(Facts):
    changes = {"adds_bos": False}


@mutant(VOCABULARY)
class EosIsClaimed(Facts):
    changes = {"adds_eos": True}


@mutant(VOCABULARY)
class AnotherBos(Facts):
    changes = {"bos_id": 2}


@mutant(VOCABULARY)
class AnotherEosText(Facts):
    changes = {"eos_text": "<eos>"}


@mutant(VOCABULARY)
class EosIsAWord(Facts):
    changes = {"eos_id": 100, "eos_text": "a"}


@mutant(ORDER)
class ClaimsNotToEmbed(Facts):
    changes = {"embedding_length": 0}


@mutant(ORDER)
class AnotherEmbeddingLength(Facts):
    changes = {"embedding_length": 16}


@mutant("a_prompt_is_continued")
class ClaimsNotToGenerate(Facts):
    changes = {"generates": False}


@mutant(ROUND_TRIP)
class ClaimsToHaveNoTokenizer(Facts):
    changes = {"tokenizer": False}


@mutant("images_are_looked_at_or_refused")
class ClaimsToSee(Facts):
    changes = {"vision": True}


@mutant("images_are_looked_at_or_refused")
class LooksAway(Facts):
    """Takes images and ignores them."""

    changes = {"vision": True}

    def check_media(self, request):
        if request.media and not request.media[0].endswith(b"IEND\xaeB`\x82"):
            raise InvalidRequestError("this is no image")


# ---- Constraints ----


@mutant(ENFORCED)
class ConstraintIgnored(TinyModel):
    def matcher(self, constraint):
        return None


@mutant(ENFORCED)
class OnlySchemasAreEnforced(TinyModel):
    def matcher(self, constraint):
        return super().matcher(constraint) if constraint and constraint.kind == "json_schema" else None


@mutant(ENFORCED)
class ConstraintAsAHint(TinyModel):
    """The constraint holds for the first tokens only."""

    def decode(self, run):
        if run.output == 6:
            run.matcher = None
        return super().decode(run)


@mutant(ENFORCED)
class AnyJsonForASchema(TinyModel):
    def matcher(self, constraint):
        if constraint and constraint.kind == "json_schema":
            constraint = replace(constraint, text="{}")
        return super().matcher(constraint)


@mutant(ENFORCED)
class FirstTokenIsFree(TinyModel):
    """The mask is late by one token."""

    def decode(self, run):
        if run.matcher and not run.output:
            matcher, run.matcher = run.matcher, None
            answer = super().decode(run)
            run.matcher = matcher
            return answer
        return super().decode(run)


@mutant(ENFORCED)
class ConstraintRefusedLate(TinyModel):
    def matcher(self, constraint):
        return None

    async def serve(self, request, tokens, matcher):
        async for event in super().serve(request, tokens, matcher):
            yield event
            if request.constraint and isinstance(event, TextDelta):
                raise InvalidRequestError("this engine knows no grammar")


@mutant(ENFORCED)
class ConstraintRaisesAnything(TinyModel):
    def matcher(self, constraint):
        if constraint:
            raise PromptTooLongError(1, 2)
        return


@mutant(ENFORCED)
class GreedyIsNotMasked(TinyModel):
    def decode(self, run):
        if run.request.sampling.temperature == 0:
            run.matcher = None
        return super().decode(run)


@mutant(ENFORCED)
class SamplingIsNotMasked(TinyModel):
    def decode(self, run):
        if run.request.sampling.temperature > 0:
            run.matcher = None
        return super().decode(run)


@mutant(ENFORCED)
class NeverEndsAConstraint(TinyModel):
    """The end token stays masked, so that the model goes on after the grammar is complete."""

    def decode(self, run):
        if run.matcher and run.matcher.mask()[EOS] and run.matcher.mask().sum() == 1:
            run.matcher = None
        return super().decode(run)


@mutant("a_constraint_concerns_one_sequence")
class ConstraintStays(TinyModel):
    kept = None

    def matcher(self, constraint):
        self.kept = constraint or self.kept
        return super().matcher(self.kept)


@mutant("a_constraint_concerns_one_sequence")
class ConstraintIsUsedUp(TinyModel):
    """A compiled constraint is kept, with its state."""

    compiled = None

    def matcher(self, constraint):
        if constraint is None:
            return None
        self.compiled = self.compiled or {}
        if constraint not in self.compiled:
            self.compiled[constraint] = super().matcher(constraint)
        return self.compiled[constraint]


@mutant(NONSENSE)
class NonsenseIsIgnored(TinyModel):
    def matcher(self, constraint):
        try:
            return super().matcher(constraint)
        except InvalidRequestError:
            return None


@mutant(NONSENSE)
class NonsenseBreaks(TinyModel):
    async def serve(self, request, tokens, matcher):
        async for event in super().serve(request, tokens, matcher):
            yield event
            if getattr(self, "broken", False) and isinstance(event, TextDelta):
                raise InvalidRequestError("cannot compile")

    def matcher(self, constraint):
        self.broken = False
        try:
            return super().matcher(constraint)
        except InvalidRequestError:
            self.broken = True
            return None


# ---- Tokens ----


@mutant(ROUND_TRIP)
class AsciiOnly(TinyModel):
    async def tokenize(self, text, /, *, add_special, parse_special):
        text = text.encode("ascii", "replace").decode()
        return self.vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)


@mutant(ROUND_TRIP)
class SpacesMerged(TinyModel):
    async def tokenize(self, text, /, *, add_special, parse_special):
        text = " ".join(text.split())
        return self.vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)


@mutant(ROUND_TRIP)
class WholeTextInOnePiece(TinyModel):
    async def detokenize(self, tokens, /, *, special):
        return [b"".join(await super().detokenize(tokens, special=special))]


@mutant(ROUND_TRIP)
class PiecesAreDecoded(TinyModel):
    async def detokenize(self, tokens, /, *, special):
        pieces = await super().detokenize(tokens, special=special)
        return [piece.decode("utf-8", "replace").encode() for piece in pieces]


@mutant(VOCABULARY)
class AddSpecialIgnored(TinyModel):
    async def tokenize(self, text, /, *, add_special, parse_special):
        return self.vocabulary.tokenize(text, add_special=False, parse_special=parse_special)


@mutant(VOCABULARY)
class AddsSpecialAlways(TinyModel):
    async def tokenize(self, text, /, *, add_special, parse_special):
        return self.vocabulary.tokenize(text, add_special=True, parse_special=parse_special)


@mutant(RECOGNISED)
class ParseSpecialIgnored(TinyModel):
    async def tokenize(self, text, /, *, add_special, parse_special):
        return self.vocabulary.tokenize(text, add_special=add_special, parse_special=False)


@mutant(RECOGNISED)
class ParsesSpecialAlways(TinyModel):
    async def tokenize(self, text, /, *, add_special, parse_special):
        return self.vocabulary.tokenize(text, add_special=add_special, parse_special=True)


@mutant(RECOGNISED)
class SpecialTextIsDropped(TinyModel):
    """Without parse_special, the text of special tokens is cut out."""

    async def tokenize(self, text, /, *, add_special, parse_special):
        if not parse_special:
            for name in SPECIAL.values():
                text = text.replace(name, "")
        return self.vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)


@mutant(VOCABULARY)
class DetokenizeWritesSpecials(TinyModel):
    async def detokenize(self, tokens, /, *, special):
        return await super().detokenize(tokens, special=True)


@mutant(VOCABULARY)
class DetokenizeHidesSpecials(TinyModel):
    async def detokenize(self, tokens, /, *, special):
        return await super().detokenize(tokens, special=False)


@mutant("what_is_no_token_is_refused")
class UnknownTokensAreEmpty(TinyModel):
    async def detokenize(self, tokens, /, *, special):
        known = [token if 0 <= token < len(self.vocabulary) else BOS for token in tokens]
        return await super().detokenize(known, special=special)


# ---- Vectors ----


@mutant(ORDER)
class EmbeddingsReversed(TinyModel):
    async def embed(self, inputs, /, *, raw=False):
        return (await super().embed(inputs, raw=raw))[::-1]


@mutant(ORDER)
class EmbeddingsSortedByLength(TinyModel):
    async def embed(self, inputs, /, *, raw=False):
        return sorted(await super().embed(inputs, raw=raw), key=lambda each: each.token_count)


@mutant(ORDER)
class EmbeddingsNotNormalised(TinyModel):
    def length(self, values):
        return 1.0


@mutant(ORDER)
class EmbeddingsNormalisedByTheLargest(TinyModel):
    def length(self, values):
        return max(map(abs, values))


@mutant(RAW)
class RawIgnored(TinyModel):
    def embedding(self, tokens, *, raw):
        return super().embedding(tokens, raw=False)


@mutant(RAW)
class RawIsSomethingElse(TinyModel):
    def embedding(self, tokens, *, raw):
        return super().embedding(tokens[:-1] if raw else tokens, raw=raw)


@mutant(ORDER)
class NeighboursInTheBatch(TinyModel):
    """The padding of a batch gets into the vectors."""

    async def embed(self, inputs, /, *, raw=False):
        batch = [self.embedding_tokens(each) for each in inputs]
        longest = max(map(len, batch), default=0)
        vectors = await super().embed(inputs, raw=raw)
        padded = [self.embedding(tokens + [3] * (longest - len(tokens)), raw=raw) for tokens in batch]
        return [replace(new, token_count=old.token_count) for old, new in zip(vectors, padded, strict=True)]


@mutant(ORDER)
class LastOfABatchLost(TinyModel):
    async def embed(self, inputs, /, *, raw=False):
        vectors = await super().embed(inputs, raw=raw)
        return vectors[:-1] if len(vectors) > 1 else vectors


@mutant(ORDER)
class OneVectorForAll(TinyModel):
    async def embed(self, inputs, /, *, raw=False):
        vectors = await super().embed(inputs, raw=raw)
        return [replace(vectors[0], token_count=each.token_count) for each in vectors]


@mutant(ORDER)
class SameVectorAlways(TinyModel):
    def vector(self, tokens):
        return super().vector([5])


@mutant(ORDER)
class EmbeddingCountsCharacters(TinyModel):
    async def embed(self, inputs, /, *, raw=False):
        vectors = await super().embed(inputs, raw=raw)
        return [replace(each, token_count=len(text)) for each, text in zip(vectors, inputs, strict=True)]


@mutant(ORDER)
class EmbeddingWithoutBos(TinyModel):
    """Texts are embedded without BOS, token ids as they are."""

    def embedding_tokens(self, text):
        tokens = super().embedding_tokens(text)
        return tokens[1:] if isinstance(text, str) else tokens


@mutant(ORDER)
class NaNVectors(TinyModel):
    def vector(self, tokens):
        return [math.nan, *super().vector(tokens)[1:]]


@mutant(ORDER)
class DimensionsCut(TinyModel):
    def embedding(self, tokens, *, raw):
        embedding = super().embedding(tokens, raw=raw)
        return Embedding(embedding.values[:-1], embedding.token_count)


@mutant(LONG)
class LongTextsAreEmbedded(TinyModel):
    def check_embedding(self, tokens):
        pass


@mutant(LONG)
class LongTextsAreCut(TinyModel):
    def embedding_tokens(self, text):
        return super().embedding_tokens(text)[: self.facts.embedding_tokens]


@mutant(LONG)
class LongTextIsInvalid(TinyModel):
    def check_embedding(self, tokens):
        if len(tokens) > self.facts.embedding_tokens:
            raise InvalidRequestError("too long")


@mutant(LONG)
class LongTextsAreLeftOut(TinyModel):
    async def embed(self, inputs, /, *, raw=False):
        short = [each for each in inputs if len(self.embedding_tokens(each)) <= self.facts.embedding_tokens]
        return await super().embed(short or inputs, raw=raw)


# ---- Ranks ----


@mutant(RANKS)
class RanksReversed(TinyModel):
    async def rerank(self, query, documents, /):
        return DocumentScores((await super().rerank(query, documents)).scores[::-1])


@mutant(RANKS)
class RanksSorted(TinyModel):
    async def rerank(self, query, documents, /):
        return DocumentScores(sorted((await super().rerank(query, documents)).scores, reverse=True))


@mutant(RANKS)
class SmallerIsBetter(TinyModel):
    def score(self, query, document):
        return -super().score(query, document)


@mutant(RANKS)
class NaNRanks(TinyModel):
    def score(self, query, document):
        return super().score(query, document) if set(query.split()) & set(document.split()) else math.nan


@mutant(RANKS)
class OneRankTooFew(TinyModel):
    async def rerank(self, query, documents, /):
        return DocumentScores((await super().rerank(query, documents)).scores[: max(len(documents) - 1, 1)])


@mutant(RANKS)
class QueryIgnored(TinyModel):
    def score(self, query, document):
        return super().score("why is the sky blue?", document)


@mutant(RANKS)
class RanksRelativeToTheBatch(TinyModel):
    async def rerank(self, query, documents, /):
        scores = (await super().rerank(query, documents)).scores
        return DocumentScores([score - max(scores) for score in scores])


@mutant(RANKS)
class OneScoreForAll(TinyModel):
    def score(self, query, document):
        return 0.5
