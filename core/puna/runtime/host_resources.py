"""The resources that a host of a model takes, for launchers that choose its machine by them."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from puna.backend import ModelSpec
from puna.plugins import Plugin
from puna.runtime.launcher import HostResources
from puna.runtime.memory import MAX_FILE_SHARE

OWN_GPU_BYTES: Final = 512 << 20
"""Memory that a process takes on a GPU before it loads a model: its context and the code of its kernels."""


def resources_of(backend: Plugin, spec: ModelSpec, gpus: float | None = None) -> HostResources:
    """Return what the host of a model takes; see `resources_for`. Blocks.

    A file that is missing counts as empty, since the load has a better error for it.
    """
    own = spec.files.values() if spec.files else (spec.path,)
    paths = [Path(each) for each in (*own, *spec.adapter_paths, *spec.projector_paths, spec.draft_path or "") if each]
    size = sum(each.stat().st_size for each in paths if each.is_file())
    return resources_for(backend, spec, size, gpus)


def resources_for(backend: Plugin, spec: ModelSpec, file_bytes: int, gpus: float | None = None) -> HostResources:
    """Return what the host of a model with files of this size takes; nothing if its backend takes no memory.

    The memory is that of which the model's files take MAX_FILE_SHARE, so that a launcher and the pool agree on the
    models that fit. On GPUs come OWN_GPU_BYTES on top. `gpus` is how many GPUs the operator gives the model; None: as
    many as its memory needs. A model without a layer on GPUs needs none.
    """
    if not backend.usable.host.memory:
        return HostResources()
    memory = int(file_bytes / MAX_FILE_SHARE)
    taken = HostResources(memory_bytes=memory, cpus=float(spec.threads or 1))
    if spec.gpu_layers == 0:
        return taken
    if gpus is not None:
        return replace(taken, gpus=gpus)
    return replace(taken, gpus=1.0, gpu_bytes=memory + OWN_GPU_BYTES)


def base_of(spec: ModelSpec) -> str:
    """Return the path of a model's weights, by which hosts with the same files are found. Blocks."""
    first = next(iter(spec.files.values()), spec.path)
    return str(Path(first).resolve()) if first else ""
