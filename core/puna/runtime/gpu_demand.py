"""The number of GPUs that a host asks a cluster for.

Theory. A host knows how many bytes it takes on GPUs, and a cluster counts GPUs. So the bytes are divided by the memory
of a GPU: a part of one, or several whole ones. Ray puts parts that add up to 1 on one GPU, and shows a host the GPUs of
which it has something and no others.

Machines whose GPUs have the same memory form a class. What is enough depends on the class, so a demand is for machines
of one class, of which Ray chooses one. The class is one whose machines have enough GPUs, if there is one, then one with
room now, then the one that needs the fewest GPUs, and of these the one with the smallest. A host that is too large for
every machine asks for all GPUs of one, and its backend leaves the rest of the model in main memory.

Where the memory of a GPU is not known, a host asks for one.

A cluster tells how much of a machine's GPUs is free, and not of which. Two GPUs of which 0.4 is free have no room for a
host that needs 0.6. So the parts that hosts of this core have are counted for each GPU. Other cores are thought to have
whole GPUs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from puna.runtime.launcher import HostResources

STEPS: Final = 100
"""Parts of a GPU that are told apart."""
ROUNDING: Final = 1e-6
"""The error of sums of parts."""


class Machine(Protocol):
    """A machine of the cluster."""

    @property
    def node_id(self) -> str:
        """Its name in the cluster."""

    @property
    def free(self) -> HostResources:
        """The resources that no host has."""

    @property
    def total(self) -> HostResources:
        """The resources that hosts can have."""

    @property
    def gpu_bytes(self) -> int:
        """Memory of one of its GPUs, of the smallest if they differ; 0: unknown."""

    @property
    def used_gpus(self) -> Mapping[str, float]:
        """The parts of its GPUs that hosts of this core have, by Ray's names for the GPUs."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The resources to ask for, and where."""

    resources: HostResources
    machines: tuple[Machine, ...]
    """The machines on which the resources are enough."""
    everywhere: bool
    """True if these are all machines, so that the cluster need not be told."""


def fits(needed: HostResources, free: HostResources) -> bool:
    """Return whether resources are there."""
    return needed.cpus <= free.cpus and needed.gpus <= free.gpus + ROUNDING and needed.memory_bytes <= free.memory_bytes


def has_room(needed: HostResources, machine: Machine) -> bool:
    """Return whether a machine has resources free, and these on as few GPUs as they are for."""
    if not fits(needed, machine.free):
        return False
    used = machine.used_gpus.values()
    others = math.ceil(machine.total.gpus - machine.free.gpus - sum(used) - ROUNDING)
    whole = machine.total.gpus - len(used) - max(others, 0)
    if needed.gpus > 1:
        return needed.gpus <= whole
    return not needed.gpus or whole >= 1 or any(needed.gpus <= 1 - each + ROUNDING for each in used)


def demand(needed: HostResources, machines: Sequence[Machine]) -> Demand:
    """Return what a host asks a cluster for: no GPUs if the cluster has none."""
    with_gpus = [each for each in machines if each.total.gpus]
    if not with_gpus:
        needed = replace(needed, gpus=0.0)
    if not (needed.gpus and needed.gpu_bytes):
        return Demand(needed, tuple(machines), everywhere=True)
    sizes = {each.gpu_bytes for each in with_gpus}
    classes = [[each for each in with_gpus if each.gpu_bytes == size] for size in sizes]
    chosen = min((_in_class(needed, each) for each in classes), key=lambda found: _rank(needed, found))
    return replace(chosen, everywhere=len(classes) == 1)


def _in_class(needed: HostResources, machines: Sequence[Machine]) -> Demand:
    """Return the demand for machines whose GPUs have the same memory."""
    count = min(_count(needed, machines[0].gpu_bytes), _most(machines))
    return Demand(replace(needed, gpus=count), tuple(machines), everywhere=False)


def _rank(needed: HostResources, found: Demand) -> tuple[bool, bool, float, bool, int]:
    """Return a key that is the smallest for the best class."""
    size, gpus = found.machines[0].gpu_bytes, found.resources.gpus
    is_free = any(has_room(found.resources, each) for each in found.machines)
    return gpus < _count(needed, size), not is_free, max(gpus, 1.0), not size, size


def _count(needed: HostResources, gpu_bytes: int) -> float:
    """Return how many GPUs of this memory hold a host."""
    if not gpu_bytes:
        return needed.gpus
    share = needed.gpu_bytes / gpu_bytes
    return float(math.ceil(share)) if share > 1 else math.ceil(share * STEPS) / STEPS


def _most(machines: Iterable[Machine]) -> float:
    return max(each.total.gpus for each in machines)
