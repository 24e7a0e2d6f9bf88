import threading

import pytest

from puna_llama_cpp.binding.turns import Turns


def test_threads_get_their_turns_in_the_order_in_which_they_ask():
    turns, order, asked = Turns(), [], []

    def take(number):
        with turns as waited:
            order.append((number, waited > 0))

    with turns as waited:
        for number in range(8):
            asked.append(threading.Thread(target=take, args=(number,)))
            asked[-1].start()
            # Each thread has asked before the next one starts.
            while len(turns._waiting) <= number:
                pass
    # This thread asks again at once, and comes after those that have waited.
    take(8)
    for thread in asked:
        thread.join()
    assert [number for number, _ in order] == list(range(9))
    assert all(has_waited for _, has_waited in order[:8])
    assert waited == 0
    assert turns.passed == 10


def test_one_that_fails_passes_the_turn_on():
    turns = Turns()
    for _ in range(2):
        with pytest.raises(ValueError, match="a batch"), turns:
            raise ValueError("a batch")
    with turns as waited:
        assert waited == 0
