"""The engine over a fake library whose samples are given: its tokens are letters."""

import math

import pytest

from puna.backend import Finish, Prefill, PromptTooLongError, Sampling, SequenceRequest, TextDelta
from puna_ctransformers.engine import PREFILL_CHUNK, Engine, check_length

END = 2


class Library:
    """A NativeModel whose samples are given, and which records what it evaluates."""

    def __init__(self, script="", context_length=1000):
        self.context_length = context_length
        self.script = [ord(letter) for letter in script] + [END]
        self.evaluated = []
        self.draws = []

    def evaluate(self, tokens, past, threads):
        assert past + len(tokens) <= self.context_length
        self.evaluated.append((past, list(tokens)))

    def sample(self, recent, **how):
        self.draws.append((list(recent), how))
        return self.script.pop(0)

    def logits(self):
        return [0.0] * 97 + [3.0, 2.0, 1.0]

    def last_state(self):
        return [1.0]


class Vocabulary:
    special = {1: b"<s>", END: b"</s>", 3: b"<tool>"}  # noqa: RUF012
    end_tokens = {END}  # noqa: RUF012
    adds_bos = True
    size = 100

    def token_bytes(self, token, *, special):
        if token in self.special:
            return self.special[token] if special else b""
        return chr(token).encode()


def engine(script="", context_length=1000):
    library = Library(script, context_length)
    return library, Engine(library, Vocabulary(), threads=1)


def run(engine, prompt, stopped=lambda: False, **values):
    return list(engine.generate(prompt, SequenceRequest(prompt="", **values), stopped))


def text(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_it_ends_with_the_model():
    _, loop = engine("hello")
    events = run(loop, [1, 5])
    assert text(events) == "hello"
    finish = events[-1]
    assert (finish.reason, finish.prompt_tokens, finish.cached_prompt_tokens, finish.output_tokens) == ("stop", 2, 0, 6)


def test_it_ends_at_the_limit():
    library, loop = engine("hello")
    events = run(loop, [1], max_tokens=3)
    assert (text(events), events[-1].reason, events[-1].output_tokens) == ("hel", "length", 3)
    assert sum(len(tokens) for _, tokens in library.evaluated) == 3  # the last one is not needed any more
    assert run(loop, [1], max_tokens=0)[-1].reason == "length"


def test_it_ends_at_a_stop_string():
    _, loop = engine("hello")
    events = run(loop, [1], stop=("ll",))
    assert [event.text for event in events[:-1]] == ["h", "e"]
    assert (events[-1].reason, events[-1].stop_sequence, events[-1].output_tokens) == ("stop", "ll", 4)


def test_a_preserved_special_token_is_seen():
    assert text(run(engine("\3a")[1], [1])) == "a"
    assert text(run(engine("\3a")[1], [1], preserved_tokens=("<tool>",))) == "<tool>a"


def test_a_prompt_is_evaluated_in_slices_that_tell_how_far_it_is():
    library, loop = engine("a")
    events = run(loop, [9] * (2 * PREFILL_CHUNK + 1))
    assert [event for event in events if isinstance(event, Prefill)] == [
        Prefill(PREFILL_CHUNK, 2 * PREFILL_CHUNK + 1),
        Prefill(2 * PREFILL_CHUNK, 2 * PREFILL_CHUNK + 1),
    ]
    assert [(past, len(tokens)) for past, tokens in library.evaluated[:3]] == [
        (0, PREFILL_CHUNK),
        (PREFILL_CHUNK, PREFILL_CHUNK),
        (2 * PREFILL_CHUNK, 1),
    ]


def test_it_stops_between_slices():
    library, loop = engine("a")
    assert run(loop, [9] * 10 * PREFILL_CHUNK, stopped=lambda: len(library.evaluated) == 2) == [
        Prefill(PREFILL_CHUNK, 10 * PREFILL_CHUNK),
        Prefill(2 * PREFILL_CHUNK, 10 * PREFILL_CHUNK),
    ]


def test_it_stops_between_tokens():
    library, loop = engine("abcdef")
    events = run(loop, [9], stopped=lambda: len(library.draws) == 3)
    assert text(events) == "abc"
    assert not any(isinstance(event, Finish) for event in events)


def test_what_is_cached_is_not_evaluated_again():
    library, loop = engine("ab")
    run(loop, [1, 5, 6])
    library.script += [ord("c"), END]
    library.evaluated.clear()
    finish = run(loop, [1, 5, 6, ord("a"), 7])[-1]
    assert finish.cached_prompt_tokens == 4
    assert library.evaluated[0] == (4, [7])


def test_the_last_token_is_always_evaluated_for_its_logits():
    library, loop = engine()
    run(loop, [1, 5])
    library.script.append(END)
    library.evaluated.clear()
    assert run(loop, [1, 5])[-1].cached_prompt_tokens == 1
    assert library.evaluated == [(1, [5])]


def test_a_full_context_forgets_the_older_half():
    library, loop = engine("abcdefgh", context_length=8)
    events = run(loop, [1, 5, 6, 7], keep_tokens=1)
    assert text(events) == "abcdefgh"
    # 1 5 6 7 a b c d are full: BOS and one token are kept, three of the other six are forgotten
    assert (2, [98, 99, 100]) in library.evaluated


def test_a_full_context_ends_a_sequence_that_may_not_shift():
    _, loop = engine("abcdefgh", context_length=8)
    events = run(loop, [1, 5, 6, 7], shift=False)
    assert (text(events), events[-1].reason) == ("abcd", "length")


def test_keeping_all_leaves_something_to_forget():
    _, loop = engine("abcdefgh", context_length=8)
    assert text(run(loop, [1, 5, 6, 7, 8, 9, 10], keep_tokens=-1)) == "abcdefgh"


@pytest.mark.parametrize(
    ("sampling", "recent", "how"),
    [
        (Sampling(temperature=0), [1, 5], {"top_k": 1, "temperature": 1.0}),
        (Sampling(top_k=0, repeat_last_n=0), [], {"top_k": 100, "temperature": 0.8}),
        (Sampling(repeat_last_n=-1, repeat_penalty=1.5, top_p=0.5), [1, 5], {"penalty": 1.5, "top_p": 0.5}),
        (Sampling(repeat_last_n=1), [5], {"top_k": 40}),
    ],
)
def test_sampling_as_the_library_has_it(sampling, recent, how):
    library, loop = engine()
    run(loop, [1, 5], sampling=sampling)
    assert library.draws[0][0] == recent
    assert how.items() <= library.draws[0][1].items()


def test_every_draw_has_its_own_seed_and_the_same_again():
    seeds = []
    for seed in (7, 7, 8, None, None):
        library, loop = engine("abc")
        run(loop, [1], sampling=Sampling(seed=seed))
        seeds.append([how["seed"] for _, how in library.draws])
    assert seeds[0] == seeds[1] != seeds[2]
    assert len(set(seeds[0])) == 4
    assert seeds[3] != seeds[4]
    assert all(0 <= seed < 2**31 for seed in sum(seeds, []))  # noqa: RUF017


def test_log_probabilities_come_with_the_text_they_belong_to():
    _, loop = engine("abc")
    events = run(loop, [1], top_logprobs=2, stop=("bd",))
    assert [event.text for event in events[:-1]] == ["a", "bc"]
    assert [len(event.logprobs) for event in events[:-1]] == [1, 2]
    first = events[0].logprobs[0]
    assert (first.raw, first.token_id) == (b"a", 97)
    assert [each.token_id for each in first.top] == [97, 98]
    total = math.log(97 + math.exp(3) + math.exp(2) + math.exp(1))
    assert first.logprob == first.top[0].logprob == pytest.approx(3 - total)


def test_no_log_probabilities_unless_asked_for():
    assert run(engine("a")[1], [1])[0].logprobs == ()
    assert run(engine("a")[1], [1], top_logprobs=0)[0].logprobs[0].top == ()


def test_a_prompt_needs_room_for_one_more():
    check_length([1] * 7, 8)
    with pytest.raises(PromptTooLongError) as error:
        check_length([1] * 8, 8)
    assert (error.value.prompt_tokens, error.value.context_length) == (8, 8)
