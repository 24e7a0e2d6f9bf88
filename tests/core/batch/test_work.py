from contextlib import closing

from tests.core.batch.conftest import make

from puna.batch import batch as states
from puna.batch.work import ATTEMPTS, Work


def test_requests_come_in_order_and_without_those_that_have_results(open_batches):
    found = open_batches()
    new = make(found, *"abcd")
    found.store.add_result(new, 2, b"x", failed=False)
    with closing(Work(new)) as work:
        assert [work.take().payload for _ in range(3)] == [b"a", b"c", b"d"]
        assert work.take() is None
        assert work.exhausted


def test_what_is_put_back_comes_first(open_batches):
    with closing(Work(make(open_batches(), *"abc"))) as work:
        first, second = work.take(), work.take()
        work.put_back(second)
        work.put_back(first)
        assert not work.exhausted
        assert [work.take().payload for _ in range(3)] == [b"a", b"b", b"c"]


def test_a_batch_that_ended_meanwhile_does_no_harm(open_batches):
    found = open_batches()
    new = make(found, *"ab")
    with closing(Work(new)) as work:
        found.store.end(new, states.CANCELLED)
        assert work.take().number == 1  # the runner drops it


def test_attempts_are_counted_for_each_request(open_batches):
    with closing(Work(make(open_batches(), *"ab"))) as work:
        one, two = work.take(), work.take()
        assert [work.failed(one) for _ in range(ATTEMPTS)] == [True] * (ATTEMPTS - 1) + [False]
        assert work.failed(two)
