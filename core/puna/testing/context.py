"""Contract tests of the context: cached prefixes, salts, context shift, and images."""

import struct
import zlib
from dataclasses import replace

from puna.backend import InvalidRequestError, LoadedModel, Sampling, SequenceRequest, TokenLogprob, UnsupportedError
from puna.testing.answers import Answer, collect, refused
from puna.testing.harness import GREEDY, STRONG_BIAS, ContractBase

PAST = 24
"""Tokens that are generated beyond the end of the context."""


class ContextTests(ContractBase):
    """What a sequence may reuse of others, and what happens when the context is full."""

    def test_a_cached_prefix_changes_nothing(self) -> None:
        """A prompt whose beginning is cached gives the text that it gives without a cache.

        If it fails: compare the tokens of the prompt with those whose keys and values are in the cache, one by one, and
        evaluate all that follow the first difference.
        """

        async def test(model: LoadedModel) -> None:
            salt = self.salt()
            whole = f"{self.prompt} {'one two three ' * 4}"
            prompts = (whole, f"{whole} four", whole, self.prompt, f"{self.prompt} {'one two seven ' * 4}", whole[:-9])
            for prompt in (*prompts, *self.prompts(3)):
                fresh = await collect(model, self.request(prompt=prompt, cache_salt=self.salt()))
                cached = await collect(model, self.request(prompt=prompt, cache_salt=salt))
                again = await collect(model, self.request(prompt=prompt, cache_salt=salt))
                assert fresh.text == cached.text == again.text, f"{prompt!r} gives another text from the cache"
                counts = {each.finish.prompt_tokens for each in (fresh, cached, again)}
                assert len(counts) == 1, "prompt_tokens counts cached tokens too"

        self.run(test)

    def test_the_cache_holds_what_was_evaluated(self) -> None:
        """A prefill that was cancelled, and one in parallel, leave a cache that gives the right text.

        If it fails: count a token as cached only after the batch with it was evaluated.
        """

        async def test(model: LoadedModel) -> None:
            if not (model.facts.context_length and model.facts.tokenizer):
                return
            prompt = await self.long_prompt(model, -40)
            right = (await collect(model, self.request(prompt=prompt, cache_salt=self.salt()))).text
            salt = self.salt()
            events = model.generate(self.request(prompt=prompt, cache_salt=salt))
            await anext(events)
            await events.aclose()
            assert (await collect(model, self.request(prompt=prompt, cache_salt=salt))).text == right

        self.run(test)

    def test_salts_keep_caches_apart(self) -> None:
        """Sequences share cached prefixes only if they have the same salt.

        If it fails: keep the salt with the cached tokens, and compare it first. Otherwise a client can find out by
        the time of an answer what another client has asked.
        """

        async def test(model: LoadedModel) -> None:
            prompt = f"{self.prompt} {'salt and pepper ' * 4}"
            for salt in (self.salt(), self.salt(), self.salt()):
                for _ in range(2):
                    answer = await collect(model, self.request(prompt=prompt, cache_salt=salt))
                other = await collect(model, self.request(prompt=prompt, cache_salt=self.salt()))
                assert other.finish.cached_prompt_tokens == 0, "a prefix with another salt was reused"
                if answer.finish.prompt_eval_ns and answer.finish.cached_prompt_tokens == 0:
                    assert answer.text == other.text

        self.run(test)

    # ---- A full context ----

    async def without_end(self, model: LoadedModel) -> Sampling:
        """Return greedy sampling that does not draw the end token, if the backend can be told so."""
        if model.facts.eos_id >= 0 and await self.takes_bias(model):
            return replace(GREEDY, logit_bias={model.facts.eos_id: -STRONG_BIAS})
        return GREEDY

    async def past_the_end(self, model: LoadedModel, **values: object) -> Answer | None:
        """Generate beyond the end of the context; None if the model or the backend does not get there."""
        if not (model.facts.context_length and model.facts.tokenizer):
            return None
        length = model.facts.context_length
        prompt = await self.long_prompt(model, -(length // 2))
        sampling = await self.without_end(model)
        request = self.request(prompt=prompt, sampling=sampling, max_tokens=length - len(prompt) + PAST)
        request = replace(request, **values)  # type: ignore[arg-type]  # names of fields
        answer = await collect(model, request)
        return None if answer.finish.reason == "stop" else answer

    def test_a_full_context_ends_or_is_shifted(self) -> None:
        """With `shift` a sequence goes on beyond the end of the context; without it the end of the context ends it.

        If it fails: when the context is full, drop the older half of what follows the kept tokens, or end with the
        reason "length" if the request does not permit a shift.
        """

        async def test(model: LoadedModel) -> None:
            await self.check_reason(model)
            salt = self.salt()
            ended = await self.past_the_end(model, shift=False)
            if ended is not None:
                total = ended.finish.prompt_tokens + ended.finish.output_tokens
                assert total <= model.facts.context_length + 1, f"{total} tokens are in the context without a shift"
                assert total >= model.facts.context_length - 2, (
                    f"it ended at {total} tokens, before the context was full"
                )
            if (
                self.obeys("shift")
                and (shifted := await self.past_the_end(model, shift=True, cache_salt=salt)) is not None
            ):
                wanted = model.facts.context_length + PAST
                total = shifted.finish.prompt_tokens + shifted.finish.output_tokens
                assert total == wanted, f"with a shift it ended at {total} tokens, not {wanted}"
                if ended is not None:
                    assert shifted.text.startswith(ended.text), "the shift changes text before the context is full"
                # What a shift has moved must not be taken for the prompt that it was.
                prompt = await self.long_prompt(model, -(model.facts.context_length // 2))
                texts = [(await collect(model, self.request(prompt=prompt, cache_salt=each))).text
                         for each in (salt, self.salt())]  # fmt: skip
                assert texts[0] == texts[1], "a prompt gives another text after its sequence was shifted"

        self.run(test)

    async def check_reason(self, model: LoadedModel) -> None:
        """Check that sequences which always end where the context ends have the reason "length"."""
        length = model.facts.context_length
        if not (length and model.facts.tokenizer):
            return
        sampling = await self.without_end(model)
        totals = []
        for shorter in range(3):
            prompt = await self.long_prompt(model, -(length // 4) - shorter)
            request = self.request(prompt=prompt, sampling=sampling, max_tokens=length, shift=False)
            answer = await collect(model, request)
            if answer.finish.reason == "length":
                return
            totals.append(answer.finish.prompt_tokens + answer.finish.output_tokens)
        # A model may end by itself, but not after prompts of three lengths at one place, the end of the context.
        assert len(set(totals)) > 1 or totals[0] < length - 2, "a full context ended sequences with the reason 'stop'"

    def test_kept_tokens_outlive_a_shift(self) -> None:
        """`keep_tokens` decides what a shift drops, so it changes what follows the shift, and nothing before it.

        If it fails: drop the older half of what follows the first `keep_tokens` tokens; -1 keeps the whole prompt.
        """

        async def test(model: LoadedModel) -> None:
            if not self.obeys("shift") or not await self.sees_far(model):
                return
            answers = [
                await self.past_the_end(model, keep_tokens=keep, top_logprobs=3, cache_salt=self.salt())
                for keep in (0, 6, -1)
            ]
            tops = [[each.top for each in answer.logprobs] for answer in answers if answer is not None]
            if len(tops) < len(answers):
                return
            before = model.facts.context_length // 2 - 8
            assert agree(tops[0][:before], tops[2][:before]), "keep_tokens has an effect before the shift"
            for one, other in ((0, 1), (0, 2), (1, 2)):
                kept, dropped = tops[one][-PAST // 2 :], tops[other][-PAST // 2 :]
                assert not agree(kept, dropped), "keep_tokens makes no difference after a shift"

        self.run(test)

    async def sees_far(self, model: LoadedModel) -> bool:
        """Return whether the first tokens of a long prompt change what the model says after it."""
        if not (model.facts.context_length and model.facts.tokenizer):
            return False
        prompt = await self.long_prompt(model, -(model.facts.context_length // 2))
        tops = []
        for each in (prompt, (prompt[1], *prompt[1:]), (*prompt[:3], prompt[2], *prompt[4:])):
            request = self.request(prompt=each, max_tokens=1)
            answer = await self.with_logprobs(model, request, 3)
            if answer is None or not answer.logprobs:
                return False
            tops.append([entry.top for entry in answer.logprobs])
        return not agree(tops[0], tops[1]) and not agree(tops[0], tops[2])

    # ---- Images ----

    def test_images_are_looked_at_or_refused(self) -> None:
        """An image changes the answer, or the request with it is refused; it is never ignored.

        If it fails: raise UnsupportedError for a request with media that the model cannot take. Put the image in the
        place of its marker "[img-N]" otherwise, and refuse what is no image with InvalidRequestError.
        """

        async def test(model: LoadedModel) -> None:
            red, blue = png(255, 0, 0), png(0, 0, 255)
            request = self.request(prompt=f"[img-0] {self.prompt}", top_logprobs=None)
            error = await refused(model, replace(request, media=(red,), max_tokens=1))
            if not model.facts.vision:
                assert isinstance(error, UnsupportedError | InvalidRequestError), "an image was ignored"
                return
            assert error is None, f"facts.vision is True, but an image was refused: {error}"
            for junk in (b"", b"this is no image", red[: len(red) // 2]):
                error = await refused(model, replace(request, media=(junk,)))
                assert isinstance(error, InvalidRequestError | UnsupportedError), f"{junk[:20]!r} gave {error!r}"
            await self.check_seen(model, request, red, blue)

        self.run(test)

    async def check_seen(self, model: LoadedModel, request: SequenceRequest, red: bytes, blue: bytes) -> None:
        """Check that an image has tokens, and that another image gives other log-probabilities."""
        text_only = await collect(model, replace(request, prompt=self.prompt))
        seen = [await collect(model, replace(request, media=(image,))) for image in (red, blue)]
        assert seen[0].finish.prompt_tokens > text_only.finish.prompt_tokens, "an image takes no tokens"
        described = [await self.with_logprobs(model, replace(request, media=(image,)), 3) for image in (red, blue)]
        if described[0] is not None and described[1] is not None:
            tops = [[each.top for each in answer.logprobs] for answer in described if answer is not None]
            assert not agree(tops[0], tops[1]), "a red and a blue image are the same to the model"


def agree(one: list[tuple[TokenLogprob, ...]], other: list[tuple[TokenLogprob, ...]]) -> bool:
    """Return whether two lists of alternatives are equal up to rounding."""
    if len(one) != len(other):
        return False
    pairs = [pair for first, second in zip(one, other, strict=True) for pair in zip(first, second, strict=True)]
    return all(a.raw == b.raw and abs(a.logprob - b.logprob) < 1e-4 for a, b in pairs)


def png(red: int, green: int, blue: int, side: int = 32) -> bytes:
    """Return an image of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, green, blue)) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
