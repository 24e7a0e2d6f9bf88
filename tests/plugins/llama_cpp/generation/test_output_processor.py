import numpy as np
import pytest

from puna.backend import BackendError, Finish, Prefill, Sampling, TextDelta
from puna_llama_cpp.generation.batch_builder import BatchBuilder
from puna_llama_cpp.generation.draft_policy import Draft
from puna_llama_cpp.generation.output_processor import OutputProcessor
from puna_llama_cpp.generation.schedule import BatchShare
from puna_llama_cpp.generation.slots import Slots
from puna_llama_cpp.generation.speculation import Speculator

PROMPT = [1, 100, 101, 102, 103]
GREEDY = Sampling(temperature=0)


class Delivery:
    """Keeps what is delivered."""

    def __init__(self):
        self.events = []

    def put(self, results, event):
        self.events.append(event)


class SlowMatcher:
    """A constraint whose mask does not come, or forbids all but one token."""

    def __init__(self, allowed=None):
        self.allowed, self.mask_late, self.accepted = allowed, False, []

    def wait_for_mask(self, seconds):
        return self.allowed is not None

    def apply_mask(self, logits):
        keep = logits[self.allowed]
        logits[:] = -np.inf
        logits[self.allowed] = keep

    def accept(self, token):
        self.accepted.append(token)


@pytest.fixture
def machine(parts, make_sequence):
    """A context with slots; evaluates all that a sequence has pending and processes the output."""

    class Machine:
        def __init__(self):
            opened = parts(parallel=2)
            self.context = opened.context
            self.slots = Slots(self.context, 2)
            self.delivery = Delivery()
            self.speculator = Speculator(10_000)
            self.output = OutputProcessor(
                self.context, opened.weights.vocabulary, self.slots, self.delivery, self.speculator
            )

        def admit(self, **request):
            sequence = make_sequence(PROMPT, **{"sampling": GREEDY, **request})
            self.slots.admit([sequence], 10**6)
            return sequence

        def step(self, sequence, draft=(), count=None):
            count = sequence.pending if count is None else count
            share = BatchShare(sequence, count, count == sequence.pending)
            self.speculator.draft = lambda *_: Draft(list(draft), [0] * len(draft))
            built = BatchBuilder(self.context, self.slots, self.speculator).build([share], speculate=bool(draft))
            self.context.decode(built.batch)
            self.output.advance(built.entries[0])
            return self.delivery.events

    return Machine()


async def test_a_part_of_a_prompt_is_progress(machine):
    sequence = machine.admit()
    assert machine.step(sequence, count=2) == [Prefill(2, len(PROMPT))]
    assert sequence.evaluated == 2


async def test_no_token_is_sampled_if_none_is_wanted(machine):
    sequence = machine.admit(max_tokens=0)
    [finish] = machine.step(sequence)
    assert (finish.reason, finish.output_tokens) == ("length", 0)
    assert not machine.slots.busy


async def test_accepted_drafts_are_the_tokens_that_come_without_them(machine):
    plain = machine.admit()
    machine.step(plain)
    for _ in range(3):
        machine.step(plain)
    expected = plain.tokens[len(PROMPT) :]
    machine.slots.release(plain)
    drafted = machine.admit()
    machine.step(drafted)
    machine.step(drafted, draft=[*expected[1:3], 277])  # the last one is wrong
    assert drafted.tokens[len(PROMPT) :] == expected
    assert drafted.pending == 1
    assert (drafted.drafted, drafted.accepted) == (3, 2)
    assert machine.context.truncate(drafted.slot, drafted.evaluated) == drafted.evaluated


async def test_a_late_mask_undoes_the_batch_for_its_sequence(machine):
    sequence = machine.admit(matcher=SlowMatcher())
    machine.step(sequence)
    assert (machine.delivery.events, sequence.evaluated, sequence.matcher.mask_late) == ([], 0, True)
    sequence.matcher.allowed = 105
    machine.step(sequence)
    assert sequence.tokens[-1] == 105
    assert sequence.matcher.accepted == [105]


async def test_log_probabilities_are_those_before_the_mask(machine):
    free, bound = machine.admit(top_logprobs=1), machine.admit(top_logprobs=1, matcher=SlowMatcher(105))
    machine.step(free)
    machine.step(bound)
    first, second = [event for event in machine.delivery.events if isinstance(event, TextDelta)]
    assert second.logprobs[0].token_id == 105
    assert second.logprobs[0].top[0].token_id == first.logprobs[0].token_id
    assert second.logprobs[0].logprob < second.logprobs[0].top[0].logprob


async def test_a_full_context_without_shift_ends_the_sequence(machine):
    sequence = machine.admit(shift=False)
    machine.context.length = len(PROMPT) + 1
    *_, finish = machine.step(sequence)
    assert (type(finish), finish.reason) == (Finish, "length")


async def test_a_failed_batch_ends_all_its_sequences_and_leaves_nothing_to_reuse(machine):
    sequences = [machine.admit(), machine.admit(cache_salt="other")]
    for sequence in sequences:
        sequence.evaluated = len(PROMPT)
    error = BackendError("no luck")
    machine.output.fail(sequences, error)
    assert machine.delivery.events == [error, error]
    assert not machine.slots.busy
    assert machine.admit().evaluated == 0


async def test_a_constraint_that_cannot_be_followed_ends_its_sequence_alone(machine):
    sequence = machine.admit(matcher=SlowMatcher(105))

    def fail(logits):
        raise BackendError("the constraint cannot be followed further")

    sequence.matcher.apply_mask = fail
    [error] = machine.step(sequence)
    assert isinstance(error, BackendError)
    assert not machine.slots.busy
