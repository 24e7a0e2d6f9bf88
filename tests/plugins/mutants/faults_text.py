"""Mutants: text, stop strings, limits, counts, the order of events."""

from dataclasses import replace

from tests.plugins.mutants.engine import TinyModel
from tests.plugins.mutants.registry import mutant
from tests.plugins.mutants.vocabulary import EOS, SPECIAL

from puna.backend.text import TextAssembly

STOPS = "stop_strings_end_the_text_and_are_not_in_it"
CHARACTERS = "no_delta_has_half_a_character"
LIMIT = "a_limit_is_kept"
CONTINUED = "a_prompt_is_continued"
SAME = "the_same_again_gives_the_same"
APART = "more_sequences_than_slots_all_finish"
TOO_LONG = "a_prompt_that_is_too_long_is_refused_with_both_numbers"


class Assembly(TextAssembly):
    """An assembly whose state its subclasses may touch."""

    __slots__ = ("stops",)

    def __init__(self, stops=()):
        super().__init__(stops)
        self.stops = tuple(stops)


def assembled(cls):
    """Return a model with an assembly of its own."""
    return type(cls.__name__, (TinyModel,), {"assembly_class": cls})


# ---- Stop strings ----


@mutant(STOPS)
@assembled
class StopIgnored(Assembly):
    def __init__(self, stops=()):
        super().__init__(())


@mutant(STOPS)
@assembled
class OnlyTheFirstStop(Assembly):
    def __init__(self, stops=()):
        super().__init__(tuple(stops)[:1])


@mutant(STOPS)
@assembled
class StopOnlyAtTheBeginningOfAToken(Assembly):
    def feed(self, raw):
        if any(raw.startswith(stop.encode()) for stop in self.stops):
            return super().feed(raw)
        self._waiting += raw
        return self._release(len(self._waiting))


@mutant(STOPS, "words")
@assembled
class StopLeakedByLongTokens(Assembly):
    """The text before the stop string is released, but what begins in a token of several characters is too."""

    def feed(self, raw):
        text = super().feed(raw)
        return text + self.stop_sequence[:1] if self.stopped and len(raw) > 2 else text


@mutant(STOPS)
@assembled
class StopIncluded(Assembly):
    def feed(self, raw):
        text = super().feed(raw)
        return text + self.stop_sequence if self.stopped else text


@mutant(STOPS)
@assembled
class BeginningOfStopLeaks(Assembly):
    """Nothing is held back: a stop string is found, but its first tokens have been sent."""

    def feed(self, raw):
        sent = self._waiting
        text = super().feed(raw)
        if not text and not self.stopped:
            return raw.decode("utf-8", "ignore")
        return text.removeprefix(sent.decode("utf-8", "ignore"))


@mutant(STOPS)
@assembled
class OverlappingStopMissed(Assembly):
    """A mismatch drops the whole candidate, so that "aab" is not found in "aaab"."""

    def feed(self, raw):
        out = ""
        for byte in raw:
            self._waiting += bytes([byte])
            if self._waiting.decode("utf-8", "ignore") in self.stops:
                self.stopped, self.stop_sequence = True, self._waiting.decode()
                self._waiting = b""
                return out
            if not any(stop.encode().startswith(self._waiting) for stop in self.stops):
                whole = self._waiting.decode("utf-8", "ignore")
                if whole or len(self._waiting) >= 4:
                    out += whole
                    self._waiting = b""
        return out


@mutant(STOPS)
@assembled
class LastStopWins(Assembly):
    def feed(self, raw):
        before = self._waiting + raw
        text = super().feed(raw)
        if self.stopped:
            text = before[: before.rfind(self.stop_sequence.encode())].decode("utf-8", "replace")
            return text if before.count(self.stop_sequence.encode()) > 1 else text + " "
        return text


@mutant(STOPS)
class StopReasonIsLength(TinyModel):
    def finish(self, run, reason):
        return super().finish(run, "length" if run.text.stopped else reason)


@mutant(STOPS)
class StopSequenceUnnamed(TinyModel):
    def finish(self, run, reason):
        return replace(super().finish(run, reason), stop_sequence="")


@mutant(STOPS)
class AnotherStopSequenceNamed(TinyModel):
    def finish(self, run, reason):
        finish = super().finish(run, reason)
        return replace(finish, stop_sequence=run.request.stop[0]) if run.text.stopped else finish


@mutant("text_like_the_beginning_of_a_stop_string_is_not_lost")
@assembled
class HeldTextLost(Assembly):
    def feed(self, raw):
        held = self._waiting.decode("utf-8", "ignore")
        text = super().feed(raw)
        return text.removeprefix(held) if self.stops and not self.stopped else text


@mutant("tokens_of_a_stop_string_are_counted")
class StopTokensUncounted(TinyModel):
    def finish(self, run, reason):
        finish = super().finish(run, reason)
        return replace(finish, output_tokens=finish.output_tokens - 1) if run.text.stopped else finish


@mutant("tokens_of_a_stop_string_are_counted")
class GoesOnAfterAStop(TinyModel):
    """The stop string is cut off only after some more tokens were generated."""

    def finish(self, run, reason):
        finish = super().finish(run, reason)
        more = min(finish.output_tokens + 3, run.request.max_tokens)
        return replace(finish, output_tokens=more) if run.text.stopped else finish


# ---- Characters ----


@mutant(CHARACTERS)
@assembled
class HalfCharacters(Assembly):
    """The bytes of each token are decoded alone."""

    def feed(self, raw):
        return raw.decode("utf-8", "replace") if not self.stops else super().feed(raw)


@mutant(CHARACTERS)
@assembled
class HalfCharactersDropped(Assembly):
    def feed(self, raw):
        return raw.decode("utf-8", "ignore") if not self.stops else super().feed(raw)


@mutant(CHARACTERS)
@assembled
class BrokenBytesDropped(Assembly):
    def _release(self, length):
        return super()._release(length).replace("\ufffd", "")


@mutant(CHARACTERS)
class HalfCharacterAtTheLimit(TinyModel):
    """What waits when the limit is reached is written, half a character or not."""

    def decode(self, run):
        text, reason = super().decode(run)
        if reason == "length" and run.text._waiting:
            text += run.text._release(len(run.text._waiting))
        return text, reason


@mutant(CHARACTERS)
@assembled
class Latin(Assembly):
    def _release(self, length):
        released, self._waiting = self._waiting[:length], b""
        return released.decode("latin-1")


# ---- Limits and ends ----


@mutant(LIMIT)
class OneTokenTooMany(TinyModel):
    def reason(self, run, *, ends):
        reason = super().reason(run, ends=ends)
        return "" if reason == "length" and run.output == run.request.max_tokens else reason


@mutant(LIMIT)
class OneTokenTooFew(TinyModel):
    def reason(self, run, *, ends):
        return super().reason(run, ends=ends) or ("length" if run.output + 1 == run.request.max_tokens else "")


@mutant(LIMIT)
class LimitIgnored(TinyModel):
    def reason(self, run, *, ends):
        return super().reason(run, ends=ends) if run.output >= 24 or run.text.stopped or ends else ""


@mutant(LIMIT)
class NoTokensMeansOne(TinyModel):
    async def serve(self, request, tokens, matcher):
        request = replace(request, max_tokens=max(request.max_tokens, 1))
        async for event in super().serve(request, tokens, matcher):
            yield event


@mutant(LIMIT)
class LimitIsCalledStop(TinyModel):
    def finish(self, run, reason):
        return super().finish(run, "stop")


@mutant("the_end_token_ends_a_sequence")
class EndIsCalledLength(TinyModel):
    def reason(self, run, *, ends):
        return "length" if ends else super().reason(run, ends=ends)


@mutant("the_end_token_ends_a_sequence")
class EndTokenIgnored(TinyModel):
    def reason(self, run, *, ends):
        return super().reason(run, ends=False)


@mutant("the_end_token_ends_a_sequence")
class EndTokenUncounted(TinyModel):
    def finish(self, run, reason):
        finish = super().finish(run, reason)
        return replace(finish, output_tokens=run.output - 1) if run.tokens[-1] == EOS else finish


@mutant("the_end_token_ends_a_sequence")
class EndTokenInTheText(TinyModel):
    def decode(self, run):
        text, reason = super().decode(run)
        return text + SPECIAL[EOS] * (run.tokens[-1] == EOS), reason


@mutant("special_tokens_are_not_in_the_text")
class SpecialTokensInTheText(TinyModel):
    def output(self, request, token):
        return self.vocabulary.bytes_of(token, special=True)


@mutant("special_tokens_are_not_in_the_text")
class PreservedTokensIgnored(TinyModel):
    def output(self, request, token):
        return self.vocabulary.bytes_of(token, special=False)


@mutant("special_tokens_are_not_in_the_text")
class OnePreservedTokenPreservesAll(TinyModel):
    def output(self, request, token):
        return self.vocabulary.bytes_of(token, special=bool(request.preserved_tokens))
