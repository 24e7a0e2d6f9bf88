import json

import pytest
from tests.core.models.convert import folders

from puna.models.convert.failure import ConversionError
from puna.models.convert.folder import INDEX, Folder


def test_shards_are_one_model(tmp_path):
    folder = folders.llama()
    whole = Folder(folder.write(tmp_path / "a")).weights()
    shards = Folder(folder.write(tmp_path / "b", shards=3)).weights()
    assert set(whole) == set(shards) == set(folder.tensors)
    (tmp_path / "b" / INDEX).unlink()
    assert set(Folder(tmp_path / "b").weights()) == set(whole)


def test_files_of_another_name_are_read_where_no_model_is(tmp_path):
    path = folders.llama().write(tmp_path)
    folders.write_safetensors(path / "consolidated.safetensors", {})
    assert Folder(path).weights()
    (path / "model.safetensors").unlink()
    assert Folder(path).weights() == {}


@pytest.mark.parametrize("has_index", [True, False])
def test_a_missing_shard_is_named(has_index, tmp_path):
    path = folders.llama().write(tmp_path, shards=3)
    (path / "model-00002-of-00003.safetensors").unlink()
    if not has_index:
        (path / INDEX).unlink()
    with pytest.raises(ConversionError, match=r"^model-00002-of-00003\.safetensors is missing$"):
        Folder(path).weights()


def test_an_index_that_does_not_fit(tmp_path):
    path = folders.llama().write(tmp_path)
    (path / INDEX).write_text(json.dumps({"weight_map": {"nothing": "model.safetensors"}}))
    with pytest.raises(ConversionError, match=r'"nothing" is not in model\.safetensors$'):
        Folder(path).weights()
    (path / INDEX).write_text(json.dumps({"weight_map": {"x": "../../model.safetensors"}}))
    with pytest.raises(ConversionError, match=r"is missing$"):
        Folder(path).weights()
    (path / INDEX).write_text(json.dumps({"weight_map": [1]}))
    with pytest.raises(ConversionError, match="does not map"):
        Folder(path).weights()


def test_settings(tmp_path):
    (tmp_path / "a.json").write_text('{"x": 1}')
    (tmp_path / "b.json").write_text("[{}, {}]")
    (tmp_path / "c.json").write_text("{")
    folder = Folder(tmp_path)
    assert (folder.json("a.json"), folder.json("nothing.json")) == ({"x": 1}, {})
    assert (folder.objects("b.json"), folder.objects("nothing.json")) == ([{}, {}], [])
    for read, name in ((folder.json, "b.json"), (folder.json, "c.json"), (folder.objects, "a.json")):
        with pytest.raises(ConversionError, match=f"^parse {name}: "):
            read(name)
    with pytest.raises(ConversionError, match=r"^insecure path"):
        folder.json("../a.json")
    with pytest.raises(ConversionError, match=r"^insecure path"):
        folder.json("/etc/a.json")
