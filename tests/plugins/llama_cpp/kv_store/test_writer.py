import threading

import numpy as np
import pytest

from puna_llama_cpp.kv_store.writer import Job, StateWriter


def job(tokens):
    state = np.zeros(10, np.uint8)
    return Job(tokens, "", state)


@pytest.fixture
def gate():
    """An event that lets every write go on."""
    return threading.Event()


@pytest.fixture
def written():
    return []


@pytest.fixture
def writer(gate, written):
    def write(each):
        gate.wait()
        written.append(each.tokens)

    opened = StateWriter(write)
    yield opened
    gate.set()
    opened.close()


def test_a_sequence_that_a_prompt_needs_is_written_first(writer, gate, written):
    for tokens in ([1, 1], [2, 2], [3, 3, 3]):
        writer.put(job(tokens))
    waiting = threading.Thread(target=writer.finish, args=([3, 3, 4], "", 2))
    waiting.start()
    while not writer._hurried:
        pass
    gate.set()
    waiting.join()
    assert written.index([3, 3, 3]) < written.index([2, 2])


@pytest.mark.parametrize(("prompt", "salt", "gain"), [([1, 2, 9], "", 3), ([1, 2], "other", 2), ([7, 7], "", 1)])
def test_a_prompt_does_not_wait_for_what_serves_it_too_little(writer, prompt, salt, gain):
    writer.put(job([1, 2, 3]))
    writer.finish(prompt, salt, gain)
    assert len(writer.unwritten()) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_has_failed():
    def fail(each):
        raise ZeroDivisionError

    writer = StateWriter(fail)
    writer.put(job([1, 2]))
    writer.finish([1, 2], "", 2)
    writer._thread.join()
    writer.put(job([1, 2]))
    writer.finish([1, 2], "", 2)
    assert writer.unwritten() == []
    writer.close()
