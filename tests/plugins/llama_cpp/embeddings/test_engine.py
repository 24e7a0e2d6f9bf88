import asyncio

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
    assert normalized(np.zeros(3, np.float32)) == [0, 0, 0]
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
