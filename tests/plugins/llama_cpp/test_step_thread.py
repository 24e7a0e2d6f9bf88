"""The step count of a step thread, by which the core tells work from a hang."""

import threading
import time

import pytest

from puna_llama_cpp.step_thread import StepThread


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
