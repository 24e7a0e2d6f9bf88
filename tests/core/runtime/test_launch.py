import itertools

import pytest

from puna.backend import Backend, InvalidRequestError, LoadedModel, ModelFacts, ModelSpec, Option
from puna.errors import DamagedModelError, LoadFailedError, OutOfMemoryError
from puna.errors import InvalidRequestError as RefusedError
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

    needs_host = False
    options = (Option(name="speed", kind=int, minimum=1, maximum=9, by_request=True), Option(name="path", kind=str))

    def __init__(self):
        self.specs = []
        self.error = None

    async def load(self, spec, report, /):
        self.specs.append(spec)
        report(0.5)
        if self.error is not None:
            raise self.error
        return Model()


class Registry:
    def __init__(self):
        self.backend = Small()

    def for_model(self, _format, _wanted, _default):
        return "small"

    def get(self, name):
        assert name == "small"
        return self.backend


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def launcher(registry):
    settings = Settings(backend_options={"small": {"path": "/lib", "speed": 2}})
    return Launcher(registry, settings, itertools.repeat("/no/socket"))


def need(verify=None, **options):
    seen = {} if verify is None else {"verify": verify}
    return ModelRequirements(
        key="m", name="m", spec=ModelSpec(path="/m"), backend_options={"small": options} if options else {}, **seen
    )


async def launch(launcher, requirements, on_progress=lambda _: None):
    return await launcher.launch(await launcher.checked(requirements), on_progress, on_death=lambda: None)


async def test_a_requests_options_win_over_the_operators(launcher, registry, monkeypatch):
    monkeypatch.setattr(launching.memory, "free_bytes", lambda: 77)
    launched = await launch(launcher, need(speed=5))
    assert (launched.backend, launched.pid) == ("small", 0)
    (spec,) = registry.backend.specs
    assert (spec.backend_options, spec.memory_bytes) == ({"path": "/lib", "speed": 5}, 77)


@pytest.mark.parametrize("options", [{"speed": 10}, {"path": "/mine"}, {"unknown": 1}])
async def test_a_request_with_a_bad_option_loads_nothing(launcher, registry, options):
    with pytest.raises(RefusedError):
        await launch(launcher, need(**options))
    assert registry.backend.specs == []


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


async def test_files_are_read_completely_only_after_a_load_failed(launcher, registry):
    verify = Verify(damaged=True)
    await launch(launcher, need(verify))
    assert verify.calls == [False]
    registry.backend.error = InvalidRequestError("no model file")
    with pytest.raises(DamagedModelError):
        await launch(launcher, need(verify))
    assert verify.calls == [False, False, True]


async def test_an_error_of_sound_files_stays_the_backends(launcher, registry):
    registry.backend.error = InvalidRequestError("no model file")
    with pytest.raises(LoadFailedError, match="unable to load model: no model file"):
        await launch(launcher, need(Verify()))


async def test_a_lack_of_memory_is_no_fault_of_the_files(launcher, registry):
    verify = Verify(damaged=True)
    registry.backend.error = MemoryError("full")
    with pytest.raises(OutOfMemoryError):
        await launch(launcher, need(verify))
    assert verify.calls == [False]
