import pytest

from puna.errors import BackendNotFoundError, InvalidRequestError
from puna.model_name import ModelName
from puna.model_settings import ConfiguredModels, ModelSettings
from puna.models.store import ModelStore
from puna.options import merge
from puna.plugins import Capabilities, Manifest, Plugin, Registry
from puna.plugins.option import Option
from puna.secrets import Secret, Secrets
from puna.serving.installed_backends import InstalledBackends
from puna.serving.requests import RequestOptions
from puna.serving.sampling_options import model_requirements
from puna.settings import Settings

OPTIONS = {
    each.name: each
    for each in (
        Option(name="level", schema={"type": "integer", "maximum": 9}, scope="model"),
        Option(name="fast", schema={"type": "boolean"}, scope="request"),
        Option(name="voice", schema={"type": "string"}, scope="model"),
        Option(name="sizes", schema={"type": "array", "items": {"type": "integer"}}, scope="model"),
        Option(name="key", schema={"type": "string", "x-secret": True}, scope="model"),
        Option(name="place", schema={"type": "string"}, scope="operator"),
    )
}

SECRETS = Secrets({"mine": Secret("env", "MY_KEY")})


def plugin(name, error="", **fields):
    return Plugin(name=name, error=error, manifest=Manifest(name=name, **fields))


@pytest.fixture
def backends():
    plugins = (
        plugin("plain", formats=("gguf",), options=OPTIONS),
        plugin("other", formats=("gguf", "onnx"), preference=9),
        plugin("chatty", capabilities=Capabilities(chat=True, tools=True, thinking=True, vision=True, embeddings=True)),
        plugin("faulty", "it is broken"),
    )
    return InstalledBackends(Registry(lambda: plugins), Settings(default_backend="plain", secrets=SECRETS))


def test_capabilities_have_the_names_of_the_api(backends):
    assert backends.facts("plain").capabilities == ("completion",)
    chatty = backends.facts("chatty")
    assert chatty.capabilities == ("completion", "vision", "tools", "thinking", "embedding")
    assert (chatty.is_chat_level, chatty.formats) == (True, ())


def test_the_servers_own_choice_comes_before_the_preference(backends):
    assert backends.serving("gguf", "") == "plain"
    assert backends.serving("gguf", "other") == "other"
    assert backends.serving("onnx", "") == "other"


def test_the_configuration_names_the_backend_of_a_model(stocked):
    models = ConfiguredModels((ModelSettings(name="plain", backend="other"),))
    plugins = plugin("plain", formats=("gguf",)), plugin("other", formats=("gguf",))
    backends = InstalledBackends(Registry(lambda: plugins), Settings(default_backend="plain", model_settings=models))
    store = ModelStore(stocked.root, backends=backends)
    found = {name: store.get(ModelName.parse(name)) for name in ("plain", "bare")}
    assert {name: (each.wanted_backend, each.serving_backend) for name, each in found.items()} == {
        "plain": ("other", "other"),
        "bare": ("", "plain"),
    }
    for name, backend in (("plain", "other"), ("bare", "")):
        assert model_requirements(found[name], merge({}), RequestOptions(), Settings()).backend == backend


@pytest.mark.parametrize("name", ["nosuch", "faulty"])
def test_what_cannot_be_used_is_named(backends, name):
    with pytest.raises(BackendNotFoundError, match=name):
        backends.facts(name)
    with pytest.raises(BackendNotFoundError, match=name):
        backends.serving("gguf", name)


def test_texts_become_what_the_backend_declares(backends):
    check = backends.facts("plain").check_options
    assert check({"level": "3", "fast": "true", "voice": "7", "sizes": "[1, 2]"}) == {
        "level": 3,
        "fast": True,
        "voice": "7",
        "sizes": [1, 2],
    }
    assert check({"level": 3, "fast": False}) == {"level": 3, "fast": False}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"level": "much"}, "option 'level' of backend 'plain' must be a whole number"),
        ({"level": "[" * 9999}, "option 'level' of backend 'plain' must be a whole number"),
        ({"level": "10"}, "option 'level' of backend 'plain' must be between -inf and 9"),
        ({"voice": 7}, "option 'voice' of backend 'plain' must be a text"),
        ({"nosuch": "x"}, "backend 'plain' has no option 'nosuch'"),
        ({"place": "x"}, "option 'place' of backend 'plain' is set in the server's configuration, not by models"),
    ],
)
def test_wrong_options_are_named(backends, options, text):
    with pytest.raises(InvalidRequestError) as caught:
        backends.facts("plain").check_options(options)
    assert str(caught.value) == text


def test_a_model_names_a_secret_of_the_configuration_and_never_holds_one(backends):
    check = backends.facts("plain").check_options
    assert check({"key": "mine"}) == {"key": "mine"}
    with pytest.raises(InvalidRequestError) as caught:
        check({"key": "sk-123456"})
    text = "option 'key' of backend 'plain' must name an entry of the configuration's table [secrets]"
    assert str(caught.value) == text
