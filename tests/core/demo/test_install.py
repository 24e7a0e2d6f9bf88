import pytest

from puna.demo.install import NAME, install, install_in_new_store
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.name import ModelName
from puna.models.show import show
from puna.models.store import ModelStore


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "models")


def test_llamita_is_an_ordinary_model(store):
    assert install(store)
    (entry,) = store.list()
    assert (entry.name.shortest, entry.details.format, entry.details.family) == ("llamita:latest", "gguf", "llama")
    assert set(entry.capabilities) >= {"completion", "tools", "thinking"}
    found = show(store.get(NAME))
    assert "MIT" in found.license
    assert found.parameters
    store.copy(NAME, ModelName.parse("friend"))
    store.delete(NAME)
    assert [each.name.model for each in store.list()] == ["friend"]


def test_installing_again_changes_nothing(store):
    install(store)
    before = store.list()
    assert not install(store)
    assert store.list() == before


def test_another_model_of_the_name_is_replaced(store):
    install(store)
    digest = store.list()[0].digest
    list(create(store, CreateRequest(name="llamita", base="llamita", system="not me")))
    assert store.list()[0].digest != digest
    assert install(store)
    assert store.list()[0].digest == digest


def test_a_new_store_comes_with_llamita(tmp_path):
    root = tmp_path / "far" / "models"
    assert install_in_new_store(root)
    assert [each.name.model for each in ModelStore(root).list()] == ["llamita"]
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
