"""How many GPUs of which machines a host asks for."""

from dataclasses import replace

import pytest

from puna.runtime.gpu_demand import demand, has_room
from puna.runtime.launcher import HostResources
from puna.runtime.ray_connection import RayNode

GB = 1 << 30
ROOM = HostResources(memory_bytes=1000 * GB, cpus=64.0)


def machine(name, gpus, size, free=None):
    free = gpus if free is None else free
    total = replace(ROOM, gpus=float(gpus))
    return RayNode(node_id=name, host=name, total=total, free=replace(ROOM, gpus=float(free)), gpu_bytes=size * GB)


def host(size, gpus=1.0):
    return HostResources(memory_bytes=GB, cpus=1.0, gpus=gpus, gpu_bytes=int(size * GB))


def asked(needed, *machines):
    found = demand(needed, machines)
    return found.resources.gpus, [each.node_id for each in found.machines], found.everywhere


@pytest.mark.parametrize(
    ("size", "gpus"),
    [(2, 0.09), (6, 0.25), (24, 1.0), (24.1, 2.0), (48, 2.0), (70, 3.0), (96, 4.0), (500, 4.0)],
)
def test_bytes_decide_how_many_gpus(size, gpus):
    """A model that no machine can hold asks for one machine's GPUs, not for what no machine has."""
    assert asked(host(size), machine("a", 4, 24), machine("b", 2, 24), machine("c", 0, 0)) == (gpus, ["a", "b"], True)


def test_one_gpu_where_its_memory_is_unknown():
    assert asked(host(50), machine("a", 4, 0)) == (1.0, ["a"], True)


def test_no_gpus_where_there_are_none():
    assert asked(host(50), machine("a", 0, 0)) == (0.0, ["a"], True)


def test_a_model_without_layers_on_gpus_runs_anywhere():
    needed = HostResources(memory_bytes=GB, cpus=1.0)
    assert asked(needed, machine("a", 2, 24), machine("b", 0, 0)) == (0.0, ["a", "b"], True)


def test_an_operators_number_counts_as_it_is():
    needed = HostResources(memory_bytes=GB, cpus=1.0, gpus=0.5)
    assert asked(needed, machine("a", 2, 24), machine("b", 1, 80)) == (0.5, ["a", "b"], True)


@pytest.mark.parametrize(
    ("gpus", "free", "used", "room"),
    [
        (0.0, 0, {"0": 1.0, "1": 1.0}, True),
        (0.4, 2, {}, True),
        (0.4, 0.8, {"0": 0.6, "1": 0.6}, True),
        (0.6, 0.8, {"0": 0.6, "1": 0.6}, False),
        (0.6, 1.4, {"0": 0.6}, True),
        # Ten parts of 0.1 are one GPU.
        (0.1, 0.1, {"0": sum([0.1] * 9), "1": 1.0}, True),
        (2.0, 2, {}, True),
        (2.0, 1.5, {"0": 0.5}, False),
        (1.0, 1.5, {"0": 0.5}, True),
        # Another core has half a GPU, and this one cannot tell of which.
        (1.0, 1.5, {}, True),
        (1.0, 0.9, {"0": 0.6}, False),
        (0.4, 0.9, {"0": 0.6}, True),
        (0.5, 0.9, {"0": 0.6}, False),
    ],
)
def test_parts_of_several_gpus_are_no_room(gpus, free, used, room):
    found = replace(machine("a", 2, 24, free), used_gpus=used)
    assert has_room(HostResources(cpus=1.0, gpus=gpus), found) is room


SMALL, LARGE, OTHER = machine("small", 4, 24), machine("large", 4, 80), machine("other", 4, 0)


@pytest.mark.parametrize(
    ("size", "machines", "expected"),
    [
        # The smallest GPU that is large enough, as long as it is free.
        (12, (LARGE, SMALL), (0.5, ["small"])),
        (12, (LARGE, replace(SMALL, free=ROOM)), (0.15, ["large"])),
        # Few GPUs are better than many.
        (40, (SMALL, LARGE), (0.5, ["large"])),
        (160, (SMALL, LARGE), (2.0, ["large"])),
        # A busy machine that can hold it is better than a free one that cannot.
        (160, (SMALL, replace(LARGE, free=ROOM)), (2.0, ["large"])),
        (90, (SMALL, replace(LARGE, free=ROOM)), (4.0, ["small"])),
        # One that tells is better than one that does not.
        (20, (OTHER, SMALL), (0.84, ["small"])),
        (20, (OTHER, replace(SMALL, free=ROOM)), (1.0, ["other"])),
    ],
)
def test_machines_with_other_gpus_are_told_apart(size, machines, expected):
    assert asked(host(size), *machines) == (*expected, False)
