import stat
from pathlib import Path

import pytest

from puna.backend import ModelSpec
from puna.errors import LoadFailedError
from puna.runtime import model_folders


def blobs(folder, *names):
    found = {}
    for number, name in enumerate(names):
        blob = folder / f"sha256-{number}"
        blob.write_text(name)
        found[name] = str(blob)
    return found


def test_files_have_their_names_in_a_folder_of_their_own(tmp_path):
    spec = ModelSpec(path="", files=blobs(tmp_path, "config.json", "a/b/model.bin", "a/c"))
    placed = model_folders.place(spec, tmp_path / "made")
    assert placed.folder == placed.path == str(tmp_path / "made")
    assert {name: Path(path).read_text() for name, path in placed.files.items()} == {
        name: name for name in ("config.json", "a/b/model.bin", "a/c")
    }
    assert all(path == f"{placed.folder}/{name}" for name, path in placed.files.items())
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    model_folders.remove(placed.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sha256-0", "sha256-1", "sha256-2"]


def test_the_only_file_is_what_to_load(tmp_path):
    placed = model_folders.place(ModelSpec(path="", files=blobs(tmp_path, "model.onnx")), tmp_path / "made")
    assert placed.path == f"{placed.folder}/model.onnx"


def test_a_folder_that_cannot_be_made_fails_the_load(tmp_path):
    (tmp_path / "made").write_text("in the way")
    with pytest.raises(LoadFailedError, match="cannot be made"):
        model_folders.place(ModelSpec(path="", files=blobs(tmp_path, "x")), tmp_path / "made")


def test_removing_nothing_is_no_error(tmp_path):
    model_folders.remove("")
    model_folders.remove(str(tmp_path / "nosuch"))
