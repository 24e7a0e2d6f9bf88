import pytest

from puna.demo.install import DEMO_MODELS, LLAMITA, LLAMITA_EMBED, install, install_in_new_store
from puna.model_name import ModelName
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.show import show
from puna.models.store import ModelStore


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "models")


def test_llamita_is_an_ordinary_model(store):
    assert install(store)
    (entry,) = (each for each in store.list() if each.name == LLAMITA.name)
    assert (entry.name.shortest, entry.details.format, entry.details.family) == ("llamita:latest", "gguf", "llama")
    assert set(entry.capabilities) >= {"completion", "tools", "thinking"}
    found = show(store.get(LLAMITA.name))
    assert "MIT" in found.license
    assert found.parameters
    store.copy(LLAMITA.name, ModelName.parse("friend"))
    store.delete(LLAMITA.name)
    assert {each.name.model for each in store.list()} == {"friend", "llamita-embed"}


def test_llamita_embed_is_an_embedding_model(store):
    install(store)
    (entry,) = (each for each in store.list() if each.name == LLAMITA_EMBED.name)
    assert (entry.details.format, entry.details.family, entry.details.quantization_level) == ("gguf", "bert", "F16")
    assert entry.capabilities == ("embedding",)
    assert "MIT" in show(store.get(LLAMITA_EMBED.name)).license


def test_the_models_are_small(store):
    install(store)
    assert sum(each.size for each in store.list()) <= 8_000_000


def test_installing_again_changes_nothing(store):
    install(store)
    before = store.list()
    assert not install(store)
    assert store.list() == before


def test_another_model_of_the_name_is_replaced(store):
    install(store)
    before = {each.name: each.digest for each in store.list()}
    list(create(store, CreateRequest(name="llamita", base="llamita", system="not me")))
    assert {each.name: each.digest for each in store.list()} != before
    assert install(store)
    assert {each.name: each.digest for each in store.list()} == before


def test_a_new_store_comes_with_the_demo_models(tmp_path):
    root = tmp_path / "far" / "models"
    assert install_in_new_store(root)
    assert {each.name for each in ModelStore(root).list()} == {demo.name for demo in DEMO_MODELS}
    assert [path.name for path in root.parent.iterdir()] == ["models"]
    assert not install_in_new_store(root)


def test_a_folder_that_exists_is_left_alone(tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    assert not install_in_new_store(root)
    assert list(root.iterdir()) == []


def test_where_no_store_can_be_made_there_is_none(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert not install_in_new_store(tmp_path / "file" / "models")
    assert "cannot make a store" in caplog.text
