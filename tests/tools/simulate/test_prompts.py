"""Prompts and the prefix cache of a replica."""

from hypothesis import given
from hypothesis import strategies as st
from tools.simulate.prompts import PrefixCache, Prompt, Taken


def test_equal_parts_are_equal_beginnings():
    root = Prompt()
    one, other = root.then("system", 100).unique(10), root.then("system", 100).unique(10)
    cache = PrefixCache(2)
    assert cache.take(one) == Taken(slot=0, reused=0, copied=0)
    assert (cache.match(one), cache.match(other), cache.match(root.then("another", 5))) == (110, 100, 0)
    # The beginning is copied from the busy slot into the other one.
    assert cache.take(other) == Taken(slot=1, reused=100, copied=110)
    assert cache.take(root.then("another", 5)) is None


def test_a_slot_keeps_its_last_sequence_until_another_takes_it():
    moves = []
    root = Prompt()
    system = root.then("system", 100)
    first, second, third = (system.unique(200) for _ in range(3))
    cache = PrefixCache(2, lambda prompt, gained: moves.append((prompt, gained)))
    for prompt, cached in ((first, 0), (second, 100), (first, 299), (third, 100)):
        taken = cache.take(prompt)
        assert taken.reused == cached
        cache.leave(taken.slot, prompt)
    assert [cache.match(each) for each in (first, second, third)] == [300, 100, 300]
    assert moves == [(first, True), (system, True), (second, True), (third, True), (second, False)]
    cache.clear()
    assert cache.match(first) == 0
    assert set(moves[-3:]) == {(first, False), (system, False), (third, False)}


def test_a_later_turn_goes_on_in_its_slot():
    cache = PrefixCache(4)
    prompt = Prompt().unique(300)
    answered = prompt.unique(80)
    slot = cache.take(prompt).slot
    cache.leave(slot, answered)
    assert cache.take(answered.unique(40)) == Taken(slot, reused=380, copied=0)


def test_a_later_turn_beside_another_sequence_is_copied_next_to_it():
    cache = PrefixCache(4)
    prompts = [Prompt().unique(300) for _ in range(3)]
    slots = [cache.take(prompt).slot for prompt in prompts]
    cache.leave(slots[2], prompts[2])
    cache.leave(slots[1], prompts[1])
    # The slot that it leaves is empty, and so takes what the new slot held.
    taken = cache.take(prompts[2].unique(40))
    assert taken == Taken(slots[1], reused=300, copied=600)
    assert cache.match(prompts[1]) == 300


@given(st.lists(st.integers(0, 3), max_size=60), st.sampled_from([30, 100, 800]))
def test_no_chat_is_lost_while_there_are_slots_for_all(turns, beginning):
    """A number begins a turn of its chat, or ends it."""
    system = Prompt().then("system", beginning)
    chats, running = dict.fromkeys(range(4), system), {}
    cache = PrefixCache(4)
    for chat in turns:
        if chat in running:
            cache.leave(running.pop(chat), chats[chat])
        else:
            message = chats[chat].unique(40)
            taken = cache.take(message)
            running[chat] = taken.slot
            assert chats[chat] is system or taken.reused == chats[chat].tokens
            chats[chat] = message.unique(150)
