import threading

from puna.diagnostics.tail import Tail


def test_a_reader_gets_what_came_after_its_last_item():
    tail = Tail(10, 100)
    assert (tail.before, tail.after(0)) == (0, ([], 0))
    for each in "abc":
        tail.append(each)
    assert tail.after(0) == ([(1, "a"), (2, "b"), (3, "c")], 0)
    assert tail.after(2) == ([(3, "c")], 0)
    assert tail.after(3) == ([], 0)


def test_a_slow_reader_hears_how_many_items_it_has_missed():
    tail = Tail(2, 100)
    for each in "abcde":
        tail.append(each)
    assert tail.after(1) == ([(4, "d"), (5, "e")], 2)
    assert tail.before == 3


def test_bytes_are_bounded():
    tail = Tail(10, 100)
    for each in "abc":
        tail.append(each, 50)
    assert tail.after(0) == ([(2, "b"), (3, "c")], 1)
    # An item that is too large by itself is dropped, and so is what came before it.
    tail.append("d", 101)
    assert (tail.before, tail.after(3)) == (4, ([], 1))


def test_threads_may_add_items():
    tail = Tail(100_000, 100)
    threads = [threading.Thread(target=lambda: [tail.append("x") for _ in range(1000)]) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [number for number, _ in tail.after(0)[0]] == list(range(1, 8001))
