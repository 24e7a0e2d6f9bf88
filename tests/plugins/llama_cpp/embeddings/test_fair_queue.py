import pytest

from puna_llama_cpp.embeddings.fair_queue import FairQueue, Job


@pytest.fixture
async def jobs():
    return [Job() for _ in range(4)]


def texts(*lengths):
    return [[1] * length for length in lengths]


def taken(queue, jobs, slots=16, room=63):
    return [(jobs.index(text.job), text.index) for text in queue.take(slots, room)]


async def test_short_texts_of_all_share_a_batch_up_to_its_room(jobs):
    queue = FairQueue()
    for job in jobs[:3]:
        queue.add(job, texts(20, 20))
    assert taken(queue, jobs) == [(0, 0), (1, 0), (2, 0)]
    assert taken(queue, jobs) == [(0, 1), (1, 1), (2, 1)]
    assert taken(queue, jobs) == []
    assert queue.jobs == []


async def test_no_more_texts_than_slots(jobs):
    queue = FairQueue()
    queue.add(jobs[0], texts(*[1] * 5))
    assert taken(queue, jobs, slots=3) == [(0, 0), (0, 1), (0, 2)]


async def test_a_long_text_goes_alone(jobs):
    queue = FairQueue()
    queue.add(jobs[0], texts(500, 5))
    assert taken(queue, jobs) == [(0, 0)]
    assert taken(queue, jobs) == [(0, 1)]


async def test_who_comes_with_a_short_text_does_not_wait_for_a_long_list(jobs):
    queue = FairQueue()
    queue.add(jobs[0], texts(*[400] * 50))
    assert taken(queue, jobs) == [(0, 0)]
    queue.add(jobs[1], texts(10))
    assert taken(queue, jobs) == [(1, 0)]


async def test_the_long_list_gets_on_beside_those_who_keep_coming(jobs):
    queue = FairQueue()
    queue.add(jobs[0], texts(*[40] * 50))
    queue.add(jobs[1], texts(*[20] * 200))
    counts = [0, 0]
    for _ in range(40):
        for job, _ in taken(queue, jobs):
            counts[job] += (40, 20)[job]
    assert counts[0] == pytest.approx(counts[1], abs=60)


async def test_what_is_dropped_is_not_taken(jobs):
    queue = FairQueue()
    queue.add(jobs[0], texts(5, 5))
    queue.add(jobs[1], texts(5))
    queue.drop(jobs[0])
    assert taken(queue, jobs) == [(1, 0)]
    queue.drop(jobs[1])
