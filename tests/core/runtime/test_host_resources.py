"""What a launcher is told of the host that a model needs."""

from dataclasses import replace

import pytest

from puna.backend import ModelSpec
from puna.runtime.host_loading import HostLoader
from puna.runtime.host_resources import OWN_GPU_BYTES, base_of, resources_of
from puna.runtime.launcher import HostResources


@pytest.fixture
def file(tmp_path):
    def file(name, size):
        path = tmp_path / name
        path.write_bytes(bytes(size))
        return str(path)

    return file


def test_the_files_of_a_model_count_and_so_do_its_options(registry, file):
    spec = ModelSpec(
        path=file("m", 800),
        adapter_paths=(file("a", 100),),
        projector_paths=(file("p", 50),),
        draft_path=file("d", 50),
        threads=3,
    )
    backend = registry.get("scripted")
    expected = HostResources(memory_bytes=1250, cpus=3.0, gpus=1.0, gpu_bytes=1250 + OWN_GPU_BYTES)
    assert resources_of(backend, spec) == expected
    assert resources_of(backend, replace(spec, threads=0, gpu_layers=0)).cpus == 1.0
    on_cpu = HostResources(memory_bytes=1250, cpus=3.0)
    assert resources_of(backend, replace(spec, gpu_layers=0)) == on_cpu
    assert resources_of(backend, spec, 0.25) == replace(on_cpu, gpus=0.25)
    assert resources_of(backend, replace(spec, gpu_layers=0), 0.25) == on_cpu
    assert resources_of(backend, ModelSpec(path="/nowhere")).memory_bytes == 0


def test_a_backend_without_memory_takes_nothing(registry, file):
    backend = registry.get("scripted")
    upstream = replace(backend, manifest=replace(backend.usable, host=replace(backend.usable.host, memory=False)))
    assert resources_of(upstream, ModelSpec(path=file("m", 8), threads=2)) == HostResources()


def test_the_base_is_the_file_behind_the_links(tmp_path, file):
    blob, link = file("blob", 1), tmp_path / "link"
    link.symlink_to(blob)
    assert base_of(ModelSpec(path=str(tmp_path), files={"w": str(link)})) == blob
    assert base_of(ModelSpec(path=blob)) == blob
    assert base_of(ModelSpec(path="", upstream="far")) == ""


async def test_a_launcher_is_told(registry, file):
    class Launcher:
        async def start(self, requirements):
            raise ValueError(requirements)

    spec = ModelSpec(path=file("m", 80))

    async def told(loader, spec):
        backend = registry.get("scripted")
        with pytest.raises(ValueError, match="scripted") as raised:
            await loader.load(backend, spec, report=lambda _: None, stall_seconds=1.0, on_death=lambda: None)
        return raised.value.args[0]

    found = await told(HostLoader(Launcher()), spec)
    expected = HostResources(memory_bytes=100, cpus=1.0, gpus=1.0, gpu_bytes=100 + OWN_GPU_BYTES)
    assert (found.base, found.resources) == (spec.path, expected)
    configured = HostLoader(Launcher(), {"large": 2.0, "other": None}.get)
    assert (await told(configured, replace(spec, name="large"))).resources.gpus == 2.0
    assert (await told(configured, replace(spec, name="other"))).resources == expected
