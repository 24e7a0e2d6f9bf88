import asyncio

from puna.backend import ModelSpec
from puna.runtime.loads_under_way import LoadsUnderWay
from puna.runtime.requirements import Loading, ModelRequirements


def begun(loads, name, bytes_taken, measured, *, takes_memory=True):
    requirements = ModelRequirements(key=name, name=name, spec=ModelSpec(path=name))
    return loads.begun(requirements, weights="", takes_memory=takes_memory, bytes_taken=bytes_taken, measured=measured)


async def test_a_load_is_counted_once_however_much_of_its_memory_it_has_taken():
    loads = LoadsUnderWay(60.0)
    with begun(loads, "a", 40, 100) as first:
        assert [loads.free(measured) for measured in (100, 80, 60, 50)] == [60, 60, 60, 50]
        with begun(loads, "b", 30, 80) as second:
            assert loads.free(80) == 30
            assert loads.free(80, second) == 60  # what the host of b finds
        # The memory that a load leaves behind is measured from now on.
        assert loads.free(80) == 60
        assert loads.all() == [first]
    assert loads.free(100) == 100


async def test_memory_that_is_not_known_is_not_counted():
    loads = LoadsUnderWay(60.0)
    with begun(loads, "a", 40, 0):
        assert loads.free(0) == 0
        assert loads.free(90) == 90


async def test_a_load_that_takes_more_than_there_is_leaves_a_byte():
    """0 would mean that the system does not say."""
    loads = LoadsUnderWay(60.0)
    with begun(loads, "a", 200, 100):
        assert loads.free(100) == 1


async def test_a_load_elsewhere_takes_no_memory():
    loads = LoadsUnderWay(60.0)
    with begun(loads, "a", 40, 100, takes_memory=False) as load:
        assert loads.all() == [load]
        assert loads.in_memory() == []
        assert loads.free(100) == 100


async def test_a_load_without_progress_does_not_count():
    loads = LoadsUnderWay(60.0)
    with begun(loads, "a", 40, 100) as load:
        load.progressed_at -= 61
        load.note(Loading(0.0, 5, 100))  # files are transferred
        assert loads.all() == []
        assert loads.free(100) == 100
        load.note(Loading(0.5))
        assert loads.all() == [load]


async def test_a_load_that_waits_to_begin_anew_does_not_count():
    loads = LoadsUnderWay(60.0)
    with begun(loads, "a", 40, 100) as load:
        waiting = asyncio.ensure_future(loads.wait_for_change())
        await asyncio.sleep(0)
        with loads.paused(load):
            await waiting
            assert loads.all() == []
        assert loads.all() == [load]
