import pytest
from tests.core.inprocess import loading

from puna.backend import Backend, InvalidRequestError, LoadedModel, ModelFacts, ModelSpec
from puna.errors import DamagedModelError, LoadFailedError, OutOfMemoryError
from puna.errors import InvalidRequestError as RefusedError
from puna.plugins import Manifest, Plugin, Registry
from puna.plugins.option import read_options
from puna.plugins.table import Table
from puna.runtime import launch as launching
from puna.runtime.launch import Launcher
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
def launcher(backend):
    options, _ = read_options(Table({"properties": OPTIONS}))
    small = Plugin(name="small", manifest=Manifest(name="small", formats=("gguf",), options=options))
    settings = Settings(backend_options={"small": {"path": "/lib", "speed": 2}})

    class Sockets:
        def next(self):
            return "/no/socket"

    return Launcher(Registry(lambda: [small]), settings, Sockets(), loading(backend))


def need(verify=None, **options):
    seen = {} if verify is None else {"verify": verify}
    return ModelRequirements(
        key="m", name="m", spec=ModelSpec(path="/m"), backend_options={"small": options} if options else {}, **seen
    )


async def launch(launcher, requirements, on_progress=lambda _: None):
    return await launcher.launch(await launcher.checked(requirements), on_progress, on_death=lambda: None)


async def test_a_requests_options_win_over_the_operators(launcher, backend, monkeypatch):
    monkeypatch.setattr(launching.memory, "free_bytes", lambda: 77)
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
    assert heard == [Loading(0.5)]


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
