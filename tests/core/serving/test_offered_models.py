"""Models that a backend offers without a creation."""

import pytest
from tests.core.inprocess import loading
from tests.core.serving.asking import WEATHER, answered, parts, prompted, said
from tests.core.serving.conftest import PLUGIN

from puna import errors
from puna.backend import ChatDelta, UpstreamModel
from puna.plugins import Plugin, Registry, read
from puna.runtime.pool import ModelPool
from puna.serving.core import Serving

OFFERED = [
    UpstreamModel(name="gpu1/Qwen/Qwen3-8B", capabilities=("completion", "tools"), context_length=4096),
    UpstreamModel(name="tiny:1b"),
]


@pytest.fixture
def registry(tmp_path):
    text = (PLUGIN / "puna_messages.backend.toml").read_text()
    (tmp_path / "backend.toml").write_text(f"{text}\nlists_models = true\n")
    manifest = read(tmp_path / "backend.toml", python_class="puna_played:PlayedBackend")
    return Registry(lambda: [Plugin(name="messages", manifest=manifest)])


@pytest.fixture(autouse=True)
def offered(monkeypatch, backend):
    """What the backend offers; a test may change it, or put an error in its place."""
    backend.facts = {"tokenizer": False, "context_length": 0}
    offered = list(OFFERED)

    async def ask(self, name):
        assert name == "messages"
        if isinstance(offered[0], Exception):
            raise offered[0]
        return offered

    monkeypatch.setattr(ModelPool, "_ask", ask)
    return offered


async def test_they_stand_behind_those_of_the_store(serving):
    found = await serving.catalogue.list()
    names = [each.name.shortest for each in found]
    assert names[-2:] == ["messages/gpu1/Qwen/Qwen3-8B:latest", "messages/tiny:1b"]
    assert "plain:latest" in names
    qwen = found[-2]
    assert (qwen.capabilities, qwen.backend, qwen.size) == (("completion", "tools"), "messages", 0)
    assert len(qwen.digest) == 64


async def test_lists_are_equal_as_long_as_nothing_changes(serving):
    assert await serving.catalogue.list() == await serving.catalogue.list()


@pytest.mark.parametrize("name", ["messages/gpu1/Qwen/Qwen3-8B", "messages/gpu1/Qwen/Qwen3-8B:latest"])
async def test_they_are_shown_loaded_asked_and_unloaded_by_name(serving, backend, name):
    shown = await serving.catalogue.show(name)
    assert (shown.name.shortest, shown.backend, shown.upstream) == (
        "messages/gpu1/Qwen/Qwen3-8B:latest",
        "messages",
        "gpu1/Qwen/Qwen3-8B",
    )
    backend.play(ChatDelta(content="Hi"))
    backend.play(ChatDelta(content="Ho"))
    deltas, _ = await answered(serving.chat(said(name, "hello")))
    more, _ = await answered(serving.generate(prompted(name, "hello", values={"num_gpu": 3, "num_ctx": 77})))
    assert parts([*deltas, *more]) == ["Hi", "Ho"]
    # Options of this machine's memory load nothing anew.
    [spec] = backend.specs
    assert (spec.path, spec.upstream, spec.name) == (
        "",
        "gpu1/Qwen/Qwen3-8B",
        "messages/gpu1/Qwen/Qwen3-8B:latest",
    )
    assert [each.name for each in serving.loaded()] == ["messages/gpu1/Qwen/Qwen3-8B:latest"]
    assert await serving.unload(name)
    assert serving.loaded() == []


async def test_their_capabilities_are_their_own(serving):
    with pytest.raises(errors.CapabilityMissingError, match="does not support tools"):
        await answered(serving.chat(said("messages/tiny:1b", "hello", tools=(WEATHER,))))


@pytest.mark.parametrize("name", ["messages/none", "messages/gpu1/Qwen/None", "messages/a/b/c/d"])
async def test_a_name_that_is_not_offered_is_not_found(serving, name):
    with pytest.raises(errors.ModelNotFoundError):
        await answered(serving.chat(said(name, "hello")))
    with pytest.raises(errors.ModelNotFoundError):
        await serving.catalogue.show(name)


async def test_they_are_not_looked_for_at_a_registry(serving):
    with pytest.raises(errors.ModelNotFoundError):
        async for _ in serving.catalogue.pull("messages/gpu1/none", insecure=False):
            pass


@pytest.mark.parametrize("name", ["other/a/b/c/d", "a b"])
async def test_other_names_are_as_invalid_as_before(serving, name):
    with pytest.raises(errors.InvalidModelNameError):
        await answered(serving.chat(said(name, "hello")))
    with pytest.raises(errors.InvalidModelNameError):
        await serving.catalogue.show(name)


async def test_a_backend_that_fails_hides_no_other_model(offered, stocked, registry, backend, settings, tmp_path):
    offered[0] = errors.BackendFailedError("it is down")
    async with ModelPool(registry, settings, socket_dir=tmp_path, load=loading(backend)) as pool:
        serving = Serving(stocked, pool, settings, registry)
        assert "plain:latest" in [each.name.shortest for each in await serving.catalogue.list()]
        with pytest.raises(errors.ModelNotFoundError):
            await answered(serving.chat(said("messages/tiny:1b", "hello")))
