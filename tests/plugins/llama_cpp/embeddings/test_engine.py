import asyncio
import threading

import numpy as np
import pytest

from puna.backend import BackendError
from puna_llama_cpp.embeddings.engine import EmbeddingEngine, normalized
from puna_llama_cpp.embeddings.fair_queue import Job


@pytest.fixture
def engine(parts):
    opened = parts("embedder")
    engine = EmbeddingEngine(opened.context, slots=4, batch_tokens=63, length=32)
    yield engine
    engine.close()


def test_a_vector_of_zeros_stays_one():
    assert normalized(np.zeros(3, np.float32)).tolist() == [0, 0, 0]
    assert normalized(np.array([3, 4], np.float32)) == pytest.approx([0.6, 0.8])


async def test_results_come_with_their_places(engine):
    job = Job()
    texts = [[1, 5, 2], [1, 6, 7, 2], [1, 2]]
    engine.submit(job, texts)
    vectors = dict([await job.results.get() for _ in texts])
    assert sorted(vectors) == [0, 1, 2]
    again = Job()
    engine.submit(again, texts[1:2])
    index, vector = await again.results.get()
    assert index == 0
    assert vector == pytest.approx(vectors[1], abs=1e-6)


async def test_a_cancelled_request_holds_up_no_other(engine):
    dropped, kept = Job(), Job()
    engine.submit(dropped, [[1, 5, 2]] * 5000)
    engine.cancel(dropped)
    engine.submit(kept, [[1, 5, 2]])
    await asyncio.wait_for(kept.results.get(), 10)


async def test_who_waits_when_it_closes_is_told(engine):
    job = Job()
    engine.submit(job, [[1, 5, 2]] * 5000)
    await asyncio.to_thread(engine.close)
    with pytest.raises(BackendError, match="unloaded"):
        while True:
            await job.results.get()
    with pytest.raises(BackendError, match="unloaded"):
        engine.submit(job, [[1]])


LONG = [1, *[5] * 60, 2]
BULK = 2000


class Batches:
    """Lets an engine evaluate one batch after the other, and records the lengths of their texts."""

    def __init__(self, context):
        self.lengths = []
        self._evaluate = context.decode_apart
        self._begun, self._wanted = threading.Semaphore(0), threading.Semaphore(0)

    def decode_apart(self, batch, lengths):
        self.lengths.append(lengths)
        self._begun.release()
        assert self._wanted.acquire(timeout=20)
        self._evaluate(batch, lengths)

    async def begin(self):
        """Wait until a batch has begun. It is held until `release`."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=20)

    def release(self, count=1):
        self._wanted.release(count)


@pytest.fixture
def batches(engine, monkeypatch):
    batches = Batches(engine._context)
    monkeypatch.setattr(engine._context, "decode_apart", batches.decode_apart)
    yield batches
    batches.release(BULK)


@pytest.mark.parametrize("lists", [1, 20])
async def test_a_short_text_waits_for_one_batch_of_long_lists(engine, batches, lists):
    bulk = [Job() for _ in range(lists)]
    for each in bulk:
        engine.submit(each, [LONG] * BULK)
    for turn in range(1, 4):
        await batches.begin()
        single = Job()
        engine.submit(single, [[1, 5, 2]])
        batches.release(2)
        await single.results.get()
        assert batches.lengths[: 2 * turn] == [[62], [3]] * turn
        await batches.begin()
    for each in bulk:
        engine.cancel(each)


async def test_a_cancelled_list_is_evaluated_for_no_further_batch(engine, batches):
    bulk = Job()
    engine.submit(bulk, [LONG] * BULK)
    await batches.begin()
    engine.cancel(bulk)
    after = Job()
    engine.submit(after, [[1, 5, 2]])
    batches.release(2)
    await after.results.get()
    assert batches.lengths == [[62], [3]]
