"""The step count of a step thread, by which the core tells work from a hang, and the way of its results to the loop."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from puna_llama_cpp.step_thread import BatchedDelivery, ResultQueue, StepThread


class Work:
    """Steps that can be held up."""

    def __init__(self):
        self.left = 0
        self.go = threading.Event()
        self.go.set()
        self.thread = StepThread("test", self.step, lambda: None)
        self.thread.start()

    def step(self):
        assert self.go.wait(10)
        self.left = max(self.left - 1, 0)
        return bool(self.left)

    def until(self, condition):
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture
def work():
    work = Work()
    yield work
    work.go.set()
    work.thread.close()


def test_a_thread_without_work_shows_no_step(work):
    work.until(lambda: work.thread.step() is None)


def test_steps_are_counted_while_there_is_work(work):
    work.until(lambda: work.thread.step() is None)
    work.left = 10**9
    work.thread.wake()
    work.until(lambda: work.thread.step() is not None)
    first = work.thread.step()
    work.until(lambda: work.thread.step() > first)
    work.left = 0


def test_a_step_that_does_not_end_shows_the_same_number(work):
    work.until(lambda: work.thread.step() is None)
    work.go.clear()
    work.thread.wake()
    work.until(lambda: work.thread.step() is not None)
    first = work.thread.step()
    time.sleep(0.1)
    assert work.thread.step() == first


def delivering(delivery, *results):
    """Deliver one item after the other, on a thread of its own."""

    def deliver():
        for queue, item in results:
            delivery.put(queue, item)
            delivery.send()

    thread = threading.Thread(target=deliver)
    thread.start()
    return thread


async def test_results_come_in_order_and_an_exception_is_raised():
    queue = connected_queue(delivery := BatchedDelivery())
    count = 2_000
    thread = delivering(delivery, *((queue, item) for item in range(count)), (queue, KeyError("x")))
    async with asyncio.timeout(30):
        assert [await queue.get() for _ in range(count)] == list(range(count))
        with pytest.raises(KeyError):
            await queue.get()
    thread.join()


async def test_the_results_of_a_step_come_in_one_turn_of_the_loop():
    delivery = BatchedDelivery()
    queues = [connected_queue(delivery) for _ in range(3)]
    readers = [asyncio.create_task(queue.get()) for queue in queues]
    await asyncio.sleep(0)
    for item, queue in enumerate(queues):
        delivery.put(queue, item)
    await asyncio.sleep(0)
    assert not any(reader.done() for reader in readers)
    delivery.send()
    async with asyncio.timeout(30):
        done, _ = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 3
    assert [reader.result() for reader in readers] == [0, 1, 2]


def test_each_loop_gets_its_own_results():
    delivery = BatchedDelivery()
    made, given = [], threading.Event()

    def run(number):
        async def read():
            made.append((queue := connected_queue(delivery), number))
            given.wait(30)
            return [await queue.get() for _ in range(10)]

        read_by_loop[number] = asyncio.run(asyncio.wait_for(read(), 30))

    read_by_loop = {}
    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    while len(made) < len(threads):
        time.sleep(0.005)
    for item in range(10):
        for queue, number in made:
            delivery.put(queue, (number, item))
        delivery.send()
    given.set()
    for thread in threads:
        thread.join()
    assert read_by_loop == {number: [(number, item) for item in range(10)] for number in range(2)}


@pytest.mark.parametrize("ended", [False, True])
def test_what_is_sent_before_the_end_arrives_and_no_file_stays_open(ended):
    """With `ended`, the loop has ended before and takes nothing."""

    async def connected():
        return connected_queue(delivery)

    async def whole():
        queue = connected_queue(delivery)
        delivery.put(queue, 1)
        delivery.send()
        delivery.close()
        return await queue.get()

    delivery, before = BatchedDelivery(), open_files()
    if ended:
        queue = asyncio.run(connected())
        for item in range(3):
            delivery.put(queue, item)
            delivery.send()
        delivery.close()
    else:
        assert asyncio.run(asyncio.wait_for(whole(), 30)) == 1
    delivery.close()
    assert open_files() == before


def connected_queue(delivery):
    queue = ResultQueue()
    delivery.connect(queue)
    return queue


def open_files():
    return sorted(Path("/proc/self/fd").iterdir())
