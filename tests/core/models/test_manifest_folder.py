import pytest

from puna.model_name import ModelName
from puna.models.layout import manifest as manifests
from puna.models.layout.manifest import Layer, Manifest
from puna.models.manifest_folder import TEMPORARY_PREFIX, ManifestFolder

CONFIG = Layer(media_type="application/x", digest="sha256:" + "a" * 64, size=1)


def data(digit):
    layer = Layer(media_type="application/y", digest="sha256:" + digit * 64, size=2)
    return manifests.dumps(Manifest(CONFIG, (layer,)))


@pytest.fixture
def folder(tmp_path):
    return ManifestFolder(tmp_path / "manifests")


def test_replacing_returns_the_digests_that_the_name_had(folder):
    name = ModelName.parse("m")
    assert folder.replace(name, data("b")) == frozenset()
    assert folder.replace(name, data("c")) == {CONFIG.digest, "sha256:" + "b" * 64}
    assert folder.used_digests(strict=True) == {CONFIG.digest, "sha256:" + "c" * 64}


def test_a_temporary_manifest_is_no_model(folder):
    folder.replace(ModelName.parse("m"), data("b"))
    (folder.folder / f"{TEMPORARY_PREFIX}x").write_bytes(b"half")
    assert [name.shortest for name, _ in folder.walk()] == ["m:latest"]
    folder.used_digests(strict=True)


def test_an_unreadable_manifest_is_listed_and_stops_only_strict_callers(folder):
    name = ModelName.parse("m")
    folder.replace(name, data("b"))
    folder.path(name).write_bytes(b"{")
    assert [found for found, _ in folder.walk()] == [name]
    assert folder.read(name) is None
    assert folder.used_digests(strict=False) == frozenset()
    with pytest.raises(ValueError, match="latest"):
        folder.used_digests(strict=True)


def test_removing_the_last_manifest_removes_the_empty_folders(folder):
    name = ModelName.parse("m")
    folder.replace(name, data("b"))
    folder.remove(name)
    assert not folder.folder.exists()
    with pytest.raises(FileNotFoundError):
        folder.remove(name)
