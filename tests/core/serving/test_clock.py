import time

from puna.backend import Finish
from puna.serving.clock import Clock, usage

FINISH = Finish(
    reason="stop",
    prompt_tokens=5,
    cached_prompt_tokens=2,
    output_tokens=3,
    prompt_eval_ns=70,
    eval_ns=80,
    draft_tokens=4,
    accepted_draft_tokens=1,
)


def test_durations_are_at_least_a_nanosecond_whatever_the_wall_clock_does():
    clock = Clock(time.time_ns() + 10**12)  # the clock was set back
    clock.model_ready()
    assert (clock.load_ns, clock.timings().total_ns) == (1, 1)


def test_a_sequence_without_a_prompt_has_no_prefill():
    timings = Clock(time.time_ns()).timings(Finish(reason="stop", prompt_eval_ns=70, eval_ns=80), queue_ns=9)
    assert (timings.prompt_eval_ns, timings.eval_ns, timings.queue_ns) == (0, 80, 9)


def test_counts_are_the_sequences():
    found = usage(FINISH, truncated=6)
    assert (found.prompt_tokens, found.cached_prompt_tokens, found.output_tokens) == (5, 2, 3)
    assert (found.truncated_tokens, found.draft_tokens, found.accepted_draft_tokens) == (6, 4, 1)
