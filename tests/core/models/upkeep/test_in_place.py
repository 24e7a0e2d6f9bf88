import errno
import hashlib
import os
from pathlib import Path

import pytest
from tests.core.models.conftest import write_gguf

from puna.errors import CreateFailedError, InvalidCreateError, ModelNotFoundError
from puna.model_name import ModelName
from puna.models.show import show
from puna.models.storage.stat_fingerprints import FileState, Place
from puna.models.upkeep import in_place
from puna.models.upkeep.in_place import Link, register
from puna.models.upkeep.scan import find, find_opaque

NAME = ModelName.parse("kid")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "kid-Q8_0.gguf"
    path.write_bytes(write_gguf(("general.architecture", "str", "zed"), tensors=(("w", (4,), 0, os.urandom(16)),)))
    return path


def take(store, path, link=Link.AUTOMATIC, name=NAME):
    (found,) = find([path])[0]
    return [step.status for step in register(store, found, name, link=link)]


def blob_of(store, name=NAME):
    return store.get(name).model_path


@pytest.mark.parametrize(
    ("link", "place"),
    [
        (Link.AUTOMATIC, Place.HARD_LINK),
        (Link.HARD, Place.HARD_LINK),
        (Link.SYMBOLIC, Place.SYMBOLIC_LINK),
        (Link.COPY, None),
    ],
)
def test_a_file_becomes_a_blob(store, file, link, place):
    content, modified = file.read_bytes(), file.stat().st_mtime_ns
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    statuses = take(store, file, link)
    assert statuses[0] == "reading kid-Q8_0.gguf"
    assert statuses[-2:] == ["writing manifest", "success"]
    model = store.get(NAME)
    assert model.model_path == store.blobs.path(digest)
    assert model.model_path.read_bytes() == content
    assert file.stat().st_mtime_ns == modified
    kept = [(each.origin, each.place, each.state) for each in show(model).in_place]
    assert kept == ([(str(file), place, FileState.UNCHANGED)] if place else [])
    assert (model.model_path.stat().st_ino == file.stat().st_ino) is bool(place)
    store.delete(NAME)
    assert file.read_bytes() == content
    assert store.blobs.files() == []


def test_across_disks_it_is_a_symbolic_link(store, file, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(CreateFailedError, match="Invalid cross-device link"):
        take(store, file, Link.HARD)
    take(store, file)
    assert blob_of(store).is_symlink()


def test_a_file_that_is_known_is_not_read_again(store, file, monkeypatch):
    take(store, file)
    assert not any(status.startswith("reading") for status in take(store, file, name=ModelName.parse("two")))
    os.utime(file)
    assert any(status.startswith("reading") for status in take(store, file, name=ModelName.parse("three")))


def test_a_hard_link_outlives_its_file(store, file):
    take(store, file)
    content = file.read_bytes()
    file.unlink()
    assert blob_of(store).read_bytes() == content
    store.get(NAME).verify(thorough=False, stopped=lambda: False)
    assert show(store.get(NAME)).in_place[0].state is FileState.UNCHANGED  # having been read


def test_a_file_that_is_gone_is_named(store, file):
    take(store, file, Link.SYMBOLIC)
    model = store.get(NAME)
    file.unlink()
    assert model.in_place[0].state is None
    with pytest.raises(ModelNotFoundError, match=f"^model 'kid:latest' not found: {file} is gone$"):
        show(model)


def test_the_blob_of_a_changed_file_is_replaced_by_one_that_is_right(store, file):
    content = file.read_bytes()
    take(store, file, Link.SYMBOLIC)
    file.write_bytes(content[:-1] + b"!")
    assert store.get(NAME).in_place[0].state is FileState.CHANGED
    assert not store.blobs.add(content).created  # as a pull or an upload brings it
    assert store.get(NAME).in_place == ()
    assert not blob_of(store).is_symlink()
    assert file.read_bytes() != content


def test_a_file_that_changes_while_it_is_read_is_refused(store, file, monkeypatch):
    read = in_place._read

    def slow(*what):
        digest = yield from read(*what)
        file.write_bytes(b"GGUF" + bytes(100))
        return digest

    monkeypatch.setattr(in_place, "_read", slow)
    with pytest.raises(CreateFailedError, match="has changed while it was read"):
        take(store, file)
    assert store.names() == []
    assert store.blobs.files() == []


def test_an_unused_link_is_pruned_after_an_hour_whatever_the_age_of_its_file(store, file):
    os.utime(file, (0, 0))
    take(store, file)
    blob = blob_of(store)
    (store.root / "manifests" / "registry.ollama.ai" / "library" / "kid" / "latest").unlink()
    store.prune()
    assert blob.exists()
    os.utime(store.blobs.stat_fingerprints.folder / blob.name, (0, 0))
    store.prune()
    assert not blob.exists()
    assert file.exists()


def test_a_split_model_is_joined_and_its_parts_are_let_go(store, tmp_path):
    for part in range(2):
        pairs = (
            ("general.architecture", "str", "zed"),
            ("split.no", "u16", part),
            ("split.count", "u16", 2),
            ("split.tensors.count", "i32", 2),
        )
        tensor = (f"w{part}", (4,), 0, os.urandom(16))
        (tmp_path / f"big-0000{part + 1}-of-00002.gguf").write_bytes(write_gguf(*pairs, tensors=(tensor,)))
    (found,) = find([tmp_path])[0]
    for _ in register(store, found, NAME):
        pass
    assert {tensor.name for tensor in store.get(NAME).gguf.tensors} == {"w0", "w1"}
    assert store.get(NAME).in_place == ()
    used = {digest.replace(":", "-") for digest in store.manifests.used_digests(strict=True)}
    assert {path.name for path in store.blobs.files()} == used
    assert len(list(tmp_path.glob("*.gguf"))) == 2


def test_a_folder_of_another_format_is_imported_file_by_file(workshop, tmp_path):
    contents = {"config.json": b"{}", "sub/weights.bin": os.urandom(9), "sub/same.json": b"{}"}
    for name, content in contents.items():
        (tmp_path / "My-Model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "My-Model" / name).write_bytes(content)
    (found,), skipped = find_opaque([tmp_path / "My-Model"])
    assert (found.name, found.names, found.is_split, skipped) == ("my-model:latest", tuple(sorted(contents)), False, [])
    list(register(workshop.store, found, NAME, backend="shelf", format="shelf"))
    model = workshop.store.get(NAME)
    assert {name: path.read_bytes() for name, path in model.files.items()} == contents
    blob = model.files["sub/weights.bin"]
    assert blob.stat().st_ino == (tmp_path / "My-Model" / "sub" / "weights.bin").stat().st_ino
    assert {each.state for each in show(model).in_place} == {FileState.UNCHANGED}
    workshop.store.delete(NAME)
    assert (tmp_path / "My-Model" / "sub" / "weights.bin").read_bytes() == contents["sub/weights.bin"]


def test_files_that_cannot_be_a_model_are_skipped_with_the_reason(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.onnx").write_bytes(b"x")
    found, skipped = find_opaque([tmp_path / "empty", tmp_path / "a.onnx"])
    assert [each.name for each in found] == ["a:latest"]
    assert [each.reason for each in skipped] == [f"{tmp_path / 'empty'} has no files"]
    for path in (tmp_path / "nosuch", Path("relative")):
        with pytest.raises(InvalidCreateError):
            find_opaque([path])
