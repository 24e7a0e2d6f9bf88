import asyncio

import pytest
from tests.core.inprocess import loading

from puna.backend import Backend, InvalidRequestError, LoadedModel, ModelFacts, ModelSpec
from puna.errors import BackendFailedError, DamagedModelError, LoadFailedError, OutOfMemoryError
from puna.errors import InvalidRequestError as RefusedError
from puna.plugins import Manifest, Plugin, Registry
from puna.plugins.option import read_options
from puna.plugins.table import Table
from puna.runtime import memory
from puna.runtime.launch import ModelLauncher
from puna.runtime.local_launcher import LocalLauncher
from puna.runtime.requirements import Loading, ModelRequirements
from puna.settings import Settings


class Model(LoadedModel):
    facts = ModelFacts(context_length=8)

    async def generate(self, request, /):
        yield

    async def tokenize(self, text, /, *, add_special, parse_special):
        return []

    async def detokenize(self, tokens, /, *, special):
        return []


class Small(Backend):
    """A backend without a host process."""

    def __init__(self):
        self.specs = []
        self.error = None

    async def load(self, spec, report, /):
        self.specs.append(spec)
        report(0.5)
        if self.error is not None:
            raise self.error
        return Model()


OPTIONS = {
    "speed": {"type": "integer", "minimum": 1, "maximum": 9, "x-scope": "request"},
    "path": {"type": "string"},
}


@pytest.fixture
def backend():
    return Small()


@pytest.fixture
def launcher(backend, tmp_path):
    options, _ = read_options(Table({"properties": OPTIONS}))
    small = Plugin(name="small", manifest=Manifest(name="small", formats=("gguf",), options=options))
    settings = Settings(backend_options={"small": {"path": "/lib", "speed": 2}})

    class Sockets:
        def next(self):
            return tmp_path / "1"

    sockets = Sockets()
    hosts = LocalLauncher(sockets.next)
    return ModelLauncher(Registry(lambda: [small]), settings, sockets, hosts, loading(backend))


def need(verify=None, **options):
    seen = {} if verify is None else {"verify": verify}
    return ModelRequirements(
        key="m", name="m", spec=ModelSpec(path="/m"), backend_options={"small": options} if options else {}, **seen
    )


async def launch(launcher, requirements, on_progress=lambda _: None):
    return await launcher.launch(await launcher.checked(requirements), on_progress, on_death=lambda: None)


async def test_a_requests_options_win_over_the_operators(launcher, backend, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 77)
    launched = await launch(launcher, need(speed=5))
    assert (launched.backend, launched.pid) == ("small", 0)
    (spec,) = backend.specs
    assert (spec.backend_options, spec.memory_bytes) == ({"path": "/lib", "speed": 5}, 77)


@pytest.mark.parametrize("options", [{"speed": 10}, {"path": "/mine"}, {"unknown": 1}])
async def test_a_request_with_a_bad_option_loads_nothing(launcher, backend, options):
    with pytest.raises(RefusedError):
        await launch(launcher, need(**options))
    assert backend.specs == []


async def test_progress_is_passed_on(launcher):
    heard = []
    await launch(launcher, need(), heard.append)
    assert heard == [Loading(0.0), Loading(0.5)]


class Verify:
    """Notes how it is called; `damaged` says whether a thorough look finds something."""

    def __init__(self, damaged=False):
        self.calls = []
        self.damaged = damaged

    def __call__(self, *, thorough, stopped):
        self.calls.append(thorough)
        if thorough and self.damaged:
            raise DamagedModelError("m", "a file is not what it was")


async def test_files_are_read_completely_only_after_a_load_failed(launcher, backend):
    verify = Verify(damaged=True)
    await launch(launcher, need(verify))
    assert verify.calls == [False]
    backend.error = InvalidRequestError("no model file")
    with pytest.raises(DamagedModelError):
        await launch(launcher, need(verify))
    assert verify.calls == [False, False, True]


async def test_an_error_of_sound_files_stays_the_backends(launcher, backend):
    backend.error = InvalidRequestError("no model file")
    with pytest.raises(LoadFailedError, match="unable to load model: no model file"):
        await launch(launcher, need(Verify()))


async def test_a_lack_of_memory_is_no_fault_of_the_files(launcher, backend):
    verify = Verify(damaged=True)
    backend.error = MemoryError("full")
    with pytest.raises(OutOfMemoryError):
        await launch(launcher, need(verify))
    assert verify.calls == [False]


@pytest.fixture
def blobs(tmp_path):
    found = {}
    for name in ("config.json", "sub/model.bin"):
        path = tmp_path / f"sha256-{len(found)}"
        path.write_text(name)
        found[name] = str(path)
    return found


def need_files(files):
    return ModelRequirements(key="m", name="m", spec=ModelSpec(path="", files=files))


async def test_opaque_files_have_a_folder_for_as_long_as_the_model_is_loaded(launcher, backend, blobs, tmp_path):
    launched = await launch(launcher, need_files(blobs))
    (spec,) = backend.specs
    assert launched.folder == spec.folder == spec.path == str(tmp_path / "1.files")
    assert (tmp_path / "1.files" / "sub" / "model.bin").read_text() == "sub/model.bin"


@pytest.mark.parametrize("error", [InvalidRequestError("no"), MemoryError("no room"), RuntimeError("oh dear")])
async def test_a_failed_load_leaves_no_folder(launcher, backend, blobs, tmp_path, error):
    backend.error = error
    with pytest.raises((LoadFailedError, RuntimeError, BackendFailedError)):
        await launch(launcher, need_files(blobs))
    assert len(backend.specs) == 1
    assert not (tmp_path / "1.files").exists()


async def test_a_cancelled_load_leaves_no_folder(launcher, backend, blobs, tmp_path):
    started = asyncio.Event()

    async def forever(spec, report, /):
        started.set()
        await asyncio.sleep(3600)

    backend.load = forever
    task = asyncio.create_task(launch(launcher, need_files(blobs)))
    await started.wait()
    assert (tmp_path / "1.files").exists()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "1.files").exists()


async def test_wrong_options_of_a_model_fail_its_load_by_name(launcher, backend):
    """A model may come from a registry, or its backend may have been upgraded."""
    stored = ModelRequirements(key="m", name="m:latest", spec=ModelSpec(path="/m", backend_options={"path": "/mine"}))
    with pytest.raises(LoadFailedError, match=r"m:latest.*'path'"):
        await launch(launcher, stored)
    assert backend.specs == []


async def test_a_requests_option_wins_over_the_models(launcher, backend):
    requirements = ModelRequirements(
        key="m",
        name="m",
        spec=ModelSpec(path="/m", backend_options={"speed": 3}),
        backend_options={"small": {"speed": 4}},
    )
    await launch(launcher, requirements)
    assert backend.specs[0].backend_options["speed"] == 4
