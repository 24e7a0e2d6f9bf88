import os

import pytest

from puna.models.opaque_files import files_of


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def opaque(folder):
    return {name: path.read_bytes() for name, path in files_of(folder).items()}


def test_all_files_of_a_folder_but_hidden_ones_have_their_relative_names(tmp_path):
    fill(tmp_path, "config.json", "a/b/c.bin", "a/README.md", ".git/HEAD", "a/.DS_Store", ".cache/x")
    assert list(opaque(tmp_path)) == ["a/README.md", "a/b/c.bin", "config.json"]
    assert list(opaque(tmp_path / "config.json")) == ["config.json"]


def test_links_may_lead_within_the_folder_and_into_the_cache_of_hugging_face(tmp_path):
    fill(tmp_path / "folder", "a.bin")
    (tmp_path / "folder" / "b.bin").symlink_to("a.bin")
    assert list(opaque(tmp_path / "folder")) == ["a.bin", "b.bin"]
    fill(tmp_path / "models--x", "blobs/123", "snapshots/main/config.json")
    (tmp_path / "models--x" / "snapshots" / "main" / "model.bin").symlink_to("../../blobs/123")
    assert list(opaque(tmp_path / "models--x" / "snapshots" / "main")) == ["config.json", "model.bin"]


@pytest.mark.parametrize("name", ["file", "folder", "dangling"])
def test_other_links_are_refused(tmp_path, name):
    fill(tmp_path, "inside/a", "file", "folder/b")
    (tmp_path / "inside" / "link").symlink_to(tmp_path / name)
    with pytest.raises(ValueError, match=r"insecure path|neither a file nor a folder"):
        files_of(tmp_path / "inside")


def test_what_has_no_files(tmp_path):
    with pytest.raises(ValueError, match="has no files"):
        files_of(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        files_of(tmp_path / "nosuch")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        files_of(tmp_path)
