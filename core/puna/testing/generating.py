"""Contract tests of what a sequence yields: its text, its limits, its counts and its end."""

from collections.abc import Sequence
from dataclasses import replace

from puna.backend import (
    InvalidRequestError,
    LoadedModel,
    PromptTooLongError,
    Sampling,
)
from puna.testing.answers import Answer, collect, refusal, refused
from puna.testing.harness import GREEDY, STRONG_BIAS, ContractBase

REPLACEMENT = "\ufffd"
"""What a decoder puts in the place of bytes that are no UTF-8."""
TRIES = 5
"""A busy machine makes a try misleading; one that is right counts."""
LONG_NS = 5_000_000
"""Nanoseconds of an answer whose durations can be compared with a clock."""


class GeneratingTests(ContractBase):
    """Text, limits, counts, and the independence of sequences."""

    def test_a_prompt_is_continued(self) -> None:
        """A sequence yields text deltas, then one Finish with plausible counts.

        If it fails: the message names the event that is wrong. If there is no text at all, choose another `prompt`.
        """

        async def test(model: LoadedModel) -> None:
            answer = await collect(model, self.request())
            assert answer.text, "the model says nothing after the prompt; set `prompt` to one that it continues"
            assert answer.finish.output_tokens > 0

        self.run(test)

    def test_text_comes_while_it_is_generated(self) -> None:
        """Each decoding step yields its text at once; a client must not wait for the whole answer.

        If it fails: yield a TextDelta for each token, or for each few tokens, and do not collect them.
        """

        async def test(model: LoadedModel) -> None:
            answer = await collect(model, self.request())
            if answer.finish.output_tokens >= 8:
                assert len(answer.deltas) > 2, "all the text came at once"

        self.run(test)

    def test_the_same_again_gives_the_same(self) -> None:
        """The same request gives the same text: greedily, whatever the seed, and with one seed.

        If it fails: temperature 0 must take the most probable token, and `seed` must determine every draw.
        """

        async def test(model: LoadedModel) -> None:
            texts = [(await collect(model, self.request())).text for _ in range(3)]
            if self.obeys("temperature"):
                seeded = [self.request(sampling=Sampling(temperature=0.0, seed=seed)) for seed in (0, 7, 2**32 - 1)]
                texts += [(await collect(model, request)).text for request in seeded]
            assert len(set(texts)) == 1, f"one greedy request has several answers: {set(texts)}"
            for sampling in (Sampling(seed=7, temperature=0.8), Sampling(seed=0, temperature=2.0, top_k=0, top_p=1.0)):
                request = self.request(sampling=sampling)
                if self.obeys("seed"):
                    first, again = await collect(model, request), await collect(model, request)
                    assert first.text == again.text, f"seed {sampling.seed} has several answers"

        self.run(test)

    def test_a_limit_is_kept(self) -> None:
        """`max_tokens` is the exact number of tokens, unless the model ends earlier; 0 evaluates the prompt only.

        If it fails: count every sampled token, and end with the reason "length" when the count reaches `max_tokens`.
        The reason is "stop" only after an end token or a stop string.
        """

        async def test(model: LoadedModel) -> None:
            whole = await collect(model, self.request())
            for limit in (1, 2, 3, 5, 8):
                answer = await collect(model, self.request(max_tokens=limit))
                assert whole.text.startswith(answer.text), "a smaller max_tokens changes the text"
                if limit < whole.finish.output_tokens:
                    assert (answer.finish.reason, answer.finish.output_tokens) == ("length", limit)
            if whole.finish.output_tokens < self.max_tokens:
                assert whole.finish.reason == "stop", "it ended before max_tokens, so the model ended it"
            none = await collect(model, self.request(max_tokens=0))
            assert (none.deltas, none.finish.reason, none.finish.output_tokens) == ((), "length", 0)
            assert none.finish.prompt_tokens == whole.finish.prompt_tokens

        self.run(test)

    def test_stop_strings_end_the_text_and_are_not_in_it(self) -> None:
        """The text ends before the stop string, wherever in a token or across tokens it begins and ends.

        If it fails: feed the bytes of each token to `puna.backend.text.TextAssembly` and yield what it returns. It
        holds back text that may be the beginning of a stop string, and releases it when it turns out to be none.
        """

        async def test(model: LoadedModel) -> None:
            whole = await collect(model, self.request())
            for stop in stop_strings(whole):
                answer = await collect(model, self.request(stop=("never\0there", stop)))
                assert answer.text == whole.text.partition(stop)[0], f"stop string {stop!r} in {whole.text!r}"
                assert (answer.finish.reason, answer.finish.stop_sequence) == ("stop", stop)
            await self.check_several_stops(model, whole)

        self.run(test)

    async def check_several_stops(self, model: LoadedModel, whole: Answer) -> None:
        """Check that of many stop strings the one that comes first in the text ends it, wherever it is in the list."""
        unused = [f"never\0there {number}" for number in range(8)]
        for begin in range(1, len(whole.text) - 1, 4):
            stops = [*unused, whole.text[begin + 1], whole.text[begin]]
            first = min(stops[-2:], key=whole.text.index)
            if REPLACEMENT not in stops and stops[-1] != stops[-2]:
                answer = await collect(model, self.request(stop=tuple(stops)))
                assert answer.text == whole.text.partition(first)[0], f"stop strings {stops[-2:]} in {whole.text!r}"
                assert answer.finish.stop_sequence == first

    def test_text_like_the_beginning_of_a_stop_string_is_not_lost(self) -> None:
        """Text that only begins like a stop string is released once the following tokens show that.

        If it fails: see `puna.backend.text.TextAssembly`, and call its `finish` when the model itself ends a sequence.
        """

        async def test(model: LoadedModel) -> None:
            whole = await collect(model, self.request())
            stops = [f"{whole.text[begin : begin + 3]}\0" for begin in range(0, max(len(whole.text) - 4, 1), 3)]
            # The prompt is no part of the text.
            in_prompt = (self.prompt[-3:], f"{self.prompt[-2:]}{whole.text[:1]}")
            for stop in (*stops, *(each for each in in_prompt if each not in whole.text)):
                answer = await collect(model, self.request(stop=(stop,)))
                held = whole.text.endswith(tuple(stop[:length] for length in range(1, len(stop))))
                # Text that waits when the limit is reached is lost, as in Ollama.
                if whole.finish.reason == "stop" or not held:
                    assert answer.text == whole.text, f"stop string {stop!r} changed a text without it"
                assert answer.finish.reason == whole.finish.reason
                assert answer.finish.output_tokens == whole.finish.output_tokens
            await self.check_held_at_the_end(model)

        self.run(test)

    async def check_held_at_the_end(self, model: LoadedModel) -> None:
        """Make the model end while its text looks like the beginning of a stop string. The text is not lost."""
        end = model.facts.eos_id
        if end < 0 or not self.obeys("presence_penalty") or not await self.takes_bias(model):
            return
        # After its first occurrence the token has 700, which is less than what the end token has.
        for token, _ in await self.plain_tokens(model, 1):
            bias = {token: STRONG_BIAS, end: 0.8 * STRONG_BIAS}
            request = self.request(sampling=replace(GREEDY, logit_bias=bias, presence_penalty=0.3 * STRONG_BIAS))
            whole = await collect(model, request)
            if whole.finish.reason == "stop" and whole.text:
                held = await collect(model, replace(request, stop=(f"{whole.text}\0",)))
                assert held.text == whole.text, f"the model ended after {whole.text!r}, of which {held.text!r} is left"

    def test_tokens_of_a_stop_string_are_counted(self) -> None:
        """`output_tokens` counts the sampled tokens up to the one that completes the stop string, and no more.

        If it fails: end the sequence with the token that completes the stop string, and count that token too.
        """

        async def test(model: LoadedModel) -> None:
            whole = await collect(model, self.request())
            if REPLACEMENT in whole.text or len(whole.text) < 3:
                return
            stop = whole.text[len(whole.text) // 2 :][:2]
            count = (await collect(model, self.request(stop=(stop,)))).finish.output_tokens
            complete = await collect(model, self.request(max_tokens=count))
            assert stop in complete.text, f"{count} tokens do not complete the stop string {stop!r}"
            shorter = await collect(model, self.request(max_tokens=count - 1))
            assert stop not in shorter.text, f"the stop string {stop!r} was complete before {count} tokens"

        self.run(test)

    def test_no_delta_has_half_a_character(self) -> None:
        """A character whose bytes come in several tokens is yielded when it is complete.

        If it fails: do not decode the bytes of each token alone; feed them to `puna.backend.text.TextAssembly`.
        """

        async def test(model: LoadedModel) -> None:
            requests = [self.request(), self.request(prompt=f"{self.prompt} Zoë 🙂 日本語 ñandú", max_tokens=100)]
            # With random tokens of any bytes, the text must be what a decoder makes of all bytes together.
            if self.obeys("temperature"):
                wild = Sampling(temperature=3.0, top_k=0, top_p=1.0, seed=3)
                requests += [self.request(sampling=replace(wild, seed=seed), max_tokens=100) for seed in range(4)]
            for request in requests:
                answer = await self.with_logprobs(model, request, 0)
                if answer is not None:
                    check_decoding(answer, await self.output_bytes(model, answer.logprobs))
                elif request.sampling == GREEDY:
                    answer = await collect(model, request)
                    assert REPLACEMENT not in answer.text, f"half a character in {answer.text!r}"
            await self.check_one_byte(model)

        self.run(test)

    async def check_one_byte(self, model: LoadedModel) -> None:
        """Make the model write the first byte of a character and nothing else, if its vocabulary can."""
        if not await self.takes_bias(model):
            return
        tokens = await model.tokenize("🙂日Ω", add_special=False, parse_special=False)
        for token, raw in zip(tokens, await model.detokenize(tokens, special=False), strict=True):
            if len(raw) == 1 and raw[0] >= 0xC0:
                bias = Sampling(temperature=0.0, logit_bias={token: STRONG_BIAS})
                answer = await collect(model, self.request(sampling=bias, max_tokens=1))
                assert answer.text == "", f"half a character was written as {answer.text!r}"

    def test_tokens_do_as_well_as_text(self) -> None:
        """The token ids of a prompt give the same text as the prompt, and are used as they are.

        If it fails: do not add BOS to token ids, and tokenize a text prompt with `add_special` and `parse_special`.
        """

        async def test(model: LoadedModel) -> None:
            if not model.facts.tokenizer:
                return
            facts = model.facts
            for prompt in (self.prompt, f"{self.prompt} {facts.eos_text}{facts.bos_text}", *self.prompts(2)):
                tokens = await self.tokens_of(model, prompt)
                of_tokens = await collect(model, self.request(prompt=tuple(tokens)))
                of_text = await collect(model, self.request(prompt=prompt))
                assert of_tokens.text == of_text.text
                assert of_tokens.finish.prompt_tokens == of_text.finish.prompt_tokens == len(tokens)
            if facts.adds_bos:
                # The prompt is then BOS alone.
                answer = await collect(model, self.request(prompt="", max_tokens=1))
                assert answer.finish.prompt_tokens >= 1

        self.run(test)

    def test_the_prompt_decides_the_text(self) -> None:
        """A prompt given as token ids is the prompt: with other ids the model says something else.

        If it fails: check that the ids of the request reach the engine, all of them and in their order.
        """

        async def test(model: LoadedModel) -> None:
            prompts = self.prompts(6)
            texts = {(await collect(model, self.request(prompt=prompt))).text for prompt in prompts}
            if len(texts) > 1 and model.facts.tokenizer:
                ids = [tuple(await self.tokens_of(model, prompt)) for prompt in prompts]
                assert {(await collect(model, self.request(prompt=each))).text for each in ids} == texts

        self.run(test)

    def test_what_is_no_token_is_refused(self) -> None:
        """An id outside the vocabulary must not be used as an index.

        If it fails: compare every id with the size of the vocabulary, and raise InvalidRequestError.
        """

        async def test(model: LoadedModel) -> None:
            if not model.facts.tokenizer:
                return
            for token in (-1, 2**31 - 1):
                error = await refused(model, self.request(prompt=(token,)))
                assert isinstance(error, InvalidRequestError), f"the prompt ({token},) gave {error!r}"
                error = await refusal(model.detokenize([token], special=True))
                assert isinstance(error, InvalidRequestError), f"detokenize([{token}]) raised {error!r}"
            # The refusal must not break what follows.
            await collect(model, self.request(max_tokens=1))

        self.run(test)

    def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(self) -> None:
        """The core truncates prompts by these numbers.

        If it fails: raise PromptTooLongError(tokens of the prompt, tokens that the context holds) before any delta. A
        prompt that is a token shorter than the second number must be served.
        """

        async def test(model: LoadedModel) -> None:
            length = model.facts.context_length
            if not (length and model.facts.tokenizer):
                return
            fits = 0
            for more in (1, length):
                prompt = await self.long_prompt(model, more)
                error = await refused(model, self.request(prompt=prompt))
                assert isinstance(error, PromptTooLongError), f"{len(prompt)} tokens were not refused: {error!r}"
                assert error.prompt_tokens == len(prompt)
                assert 0 < error.context_length <= length
                fits = error.context_length - 1
                text = "".join(f"{self.prompt} " for _ in range(len(prompt)))
                error_of_text = await refused(model, self.request(prompt=text))
                assert isinstance(error_of_text, PromptTooLongError), f"a long text gave {error_of_text!r}"
                assert error_of_text.prompt_tokens == len(await self.tokens_of(model, text))
            fitting = await self.long_prompt(model, fits - length)
            answer = await collect(model, self.request(prompt=fitting, max_tokens=1))
            assert answer.finish.prompt_tokens == len(fitting)

        self.run(test)

    def test_the_durations_are_nanoseconds(self) -> None:
        """`prompt_eval_ns` and `eval_ns` are nanoseconds of this sequence; 0 if the backend does not measure.

        If it fails: use `time.perf_counter_ns()`.
        """

        async def test(model: LoadedModel) -> None:
            answer = await collect(model, self.request(max_tokens=200, cache_salt=self.salt()))
            spent = answer.finish.prompt_eval_ns + answer.finish.eval_ns
            if spent and answer.elapsed_ns > LONG_NS:
                assert spent > answer.elapsed_ns / 100, f"{spent} ns for an answer of {answer.elapsed_ns} ns"
            await self.check_share_of_decoding(model)

        self.run(test)

    async def check_share_of_decoding(self, model: LoadedModel) -> None:
        """Check that more tokens take more of `eval_ns`, and not of `prompt_eval_ns`."""
        for _ in range(TRIES):
            short = await collect(model, self.request(max_tokens=1, cache_salt=self.salt()))
            long = await collect(model, self.request(max_tokens=200, cache_salt=self.salt()))
            decoding = long.finish.eval_ns - short.finish.eval_ns
            prefill = long.finish.prompt_eval_ns - short.finish.prompt_eval_ns
            more = long.elapsed_ns - short.elapsed_ns
            if more < LONG_NS or decoding >= prefill or not short.finish.prompt_eval_ns:
                return
        raise AssertionError("more tokens take more of prompt_eval_ns; are the durations exchanged?")


def stop_strings(answer: Answer) -> Sequence[str]:
    """Return parts of a text as stop strings: within deltas, across deltas, after doubled letters, short and long."""
    text = answer.text
    borders = [0]
    for delta in answer.deltas:
        borders.append(borders[-1] + len(delta.text))
    found: dict[str, None] = {}
    for border in borders[1:-1:2]:
        # One that ends at a border, begins at it, lies across it, and lies across several deltas.
        spans = ((border - 2, border), (border, border + 2), (border - 1, border + 1), (border - 2, border + 7))
        found |= {text[max(begin, 0) : end]: None for begin, end in spans}
    middle = len(text) // 2
    found |= {text[:1]: None, text[middle : middle + 1]: None, text[middle : middle + 4]: None, text[-3:]: None}
    # After "aa", the stop string "ab" begins at the second letter of "aab".
    doubled = [place for place in range(1, len(text) - 1) if text[place] == text[place - 1]]
    found |= {text[place : place + 3]: None for place in doubled[:3]}
    # A character that no decoder could read is no text that a client would name.
    return [stop for stop in found if stop and REPLACEMENT not in stop][:40]


def check_decoding(answer: Answer, raw: bytes) -> None:
    """Check that the text is what the bytes of all its tokens give when they are decoded together."""
    whole = raw.decode("utf-8", "replace")
    assert whole.startswith(answer.text), f"{raw!r} became {answer.text!r}"
    # Only bytes that might become a character may be missing at the end: rarely more than four, unless none is UTF-8.
    assert len(whole) - len(answer.text) <= 12, f"{answer.text!r} lacks the end of {whole!r}"
