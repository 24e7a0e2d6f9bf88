"""The resources that a host of a model takes, for launchers that choose its machine by them."""

from pathlib import Path

from puna.backend import ModelSpec
from puna.plugins import Plugin
from puna.runtime.launcher import HostResources
from puna.runtime.memory import MAX_FILE_SHARE


def resources_of(backend: Plugin, spec: ModelSpec) -> HostResources:
    """Return what the host of a model takes; see `resources_for`. Blocks.

    A file that is missing counts as empty, since the load has a better error for it.
    """
    own = spec.files.values() if spec.files else (spec.path,)
    paths = [Path(each) for each in (*own, *spec.adapter_paths, *spec.projector_paths, spec.draft_path or "") if each]
    size = sum(each.stat().st_size for each in paths if each.is_file())
    return resources_for(backend, spec, size)


def resources_for(backend: Plugin, spec: ModelSpec, file_bytes: int) -> HostResources:
    """Return what the host of a model with files of this size takes; nothing if its backend takes no memory.

    The memory is that of which the model's files take MAX_FILE_SHARE, so that a launcher and the pool agree on the
    models that fit.
    """
    if not backend.usable.host.memory:
        return HostResources()
    return HostResources(
        memory_bytes=int(file_bytes / MAX_FILE_SHARE), cpus=float(spec.threads or 1), gpus=float(spec.gpu_layers != 0)
    )


def base_of(spec: ModelSpec) -> str:
    """Return the path of a model's weights, by which hosts with the same files are found. Blocks."""
    first = next(iter(spec.files.values()), spec.path)
    return str(Path(first).resolve()) if first else ""
