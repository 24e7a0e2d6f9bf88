"""Slots over a real context: what is reused is really in the cache."""

import pytest

from puna_llama_cpp.generation.prefix_cache import MIN_COPY_GAIN
from puna_llama_cpp.generation.slots import Slots

PROMPT = [1, *range(3, 200)]
OTHER = [1, *range(200, 3, -1)]
PLENTY = 10**6


@pytest.fixture
def context(parts):
    return parts(parallel=4).context


async def test_what_the_last_sequence_left_is_reused(context, make_sequence, prefill):
    slots = Slots(context, 4)
    first = make_sequence(PROMPT)
    assert slots.admit([first], PLENTY) == []
    prefill(context, first)
    slots.release(first)
    again = make_sequence([*PROMPT, 5, 6])
    slots.admit([again], PLENTY)
    assert (again.slot, again.evaluated) == (first.slot, len(PROMPT))
    prefill(context, again)  # fails if the cache holds anything else at these positions


async def test_copies_of_one_step_end_with_its_time(context, make_sequence, prefill):
    slots = Slots(context, 4)
    waiting = [make_sequence(PROMPT), make_sequence(OTHER)]
    rest = slots.admit(waiting, PLENTY, 0.0)
    assert rest == waiting[1:]
    assert slots.admit(rest, PLENTY, 0.0) == []


async def test_another_salt_reuses_nothing(context, make_sequence, prefill):
    slots = Slots(context, 4)
    first = make_sequence(PROMPT, cache_salt="mine")
    slots.admit([first], PLENTY)
    prefill(context, first)
    slots.release(first)
    other = make_sequence(PROMPT, cache_salt="yours")
    slots.admit([other], PLENTY)
    assert other.evaluated == 0
    prefill(context, other)


async def test_a_running_sequence_is_copied_to_a_slot_beside_it(context, make_sequence, prefill):
    slots = Slots(context, 4)
    first = make_sequence(PROMPT)
    slots.admit([first], PLENTY)
    prefill(context, first)
    first._generated = 1
    second = make_sequence([*PROMPT[:100], 7])
    slots.admit([second], PLENTY)
    assert abs(second.slot - first.slot) == 1
    assert second.evaluated == 100
    prefill(context, second)


async def test_a_prompt_waits_for_the_prefill_of_its_beginning(context, make_sequence, prefill):
    slots = Slots(context, 4)
    first = make_sequence([*PROMPT, 7, 7, 7])
    second = make_sequence([*PROMPT, 8, 8, 8])
    slots.admit([first], PLENTY)
    assert slots.admit([second], PLENTY) == [second]
    assert slots.prefill_end(first) == len(PROMPT)
    prefill(context, first, len(PROMPT))
    assert slots.admit([second], PLENTY) == []
    assert second.evaluated == len(PROMPT)
    assert slots.prefill_end(first) == len(first.tokens)


async def test_a_prompt_does_not_wait_for_a_less_urgent_one(context, make_sequence):
    slots = Slots(context, 4)
    slots.admit([make_sequence(PROMPT)], PLENTY)
    assert slots.admit([make_sequence(PROMPT, priority=1)], PLENTY) == []


async def test_a_little_in_common_is_not_waited_for(context, make_sequence):
    slots = Slots(context, 4)
    slots.admit([make_sequence(PROMPT)], PLENTY)
    assert slots.admit([make_sequence([*PROMPT[: MIN_COPY_GAIN - 1], 250])], PLENTY) == []


async def test_no_slot_is_given_to_a_prompt_that_the_step_has_no_room_for(context, make_sequence):
    slots = Slots(context, 4)
    first, second = make_sequence(PROMPT), make_sequence(OTHER)
    assert slots.admit([first, second], len(PROMPT)) == [second]
    assert slots.running == [first]
    assert slots.idle_count == 3


async def test_a_gap_is_padded_behind_what_lies_there(context, make_sequence, prefill):
    slots = Slots(context, 4)
    sequences = [make_sequence([1, 10 + number, 5, 6]) for number in range(3)]
    slots.admit(sequences, PLENTY)
    for sequence in sequences:
        prefill(context, sequence)
    by_slot = {sequence.slot: sequence for sequence in sequences}
    middle = sorted(by_slot)[1]
    slots.release(by_slot[middle])
    busy = [slot for slot in by_slot if slot != middle]
    assert slots.padding(busy) == {middle: 4}
    assert slots.padding(busy[:1]) == {}


async def test_truncating_keeps_what_is_before(context, make_sequence, prefill):
    slots = Slots(context, 4)
    sequence = make_sequence(PROMPT)
    slots.admit([sequence], PLENTY)
    prefill(context, sequence)
    sequence.evaluated = slots.truncate(sequence, 50)
    assert sequence.evaluated == 50
    prefill(context, sequence)


async def test_tokens_of_running_sequences_and_those_left_are_counted_apart(context, make_sequence, prefill):
    slots = Slots(context, 4)
    assert slots.token_counts() == (0, 0)
    first, second = make_sequence(PROMPT), make_sequence(OTHER)
    slots.admit([first, second], PLENTY)
    prefill(context, first)
    prefill(context, second)
    assert slots.token_counts() == (len(PROMPT) + len(OTHER), 0)
    slots.release(first)
    assert slots.token_counts() == (len(OTHER), len(PROMPT))
