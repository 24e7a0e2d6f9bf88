import os

import pytest

from puna.cli.errors import CommandError
from puna.cli.sources import model_files, opaque_files


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def found(folder):
    return [path.relative_to(folder).as_posix() for path in model_files(folder)]


def test_a_folder_of_safetensors_brings_what_belongs_to_it(tmp_path):
    fill(tmp_path, "model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors", "consolidated.safetensors")
    fill(tmp_path, "config.json", "1_Pooling/config.json", "tokenizer.model", "chat_template.jinja", "README.md")
    assert found(tmp_path) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "config.json",
        "1_Pooling/config.json",
        "chat_template.jinja",
        "tokenizer.model",
    ]


def test_a_folder_with_an_adapter(tmp_path):
    fill(tmp_path, "adapter_model.safetensors", "adapter_config.json", "training_args.bin")
    assert found(tmp_path) == ["adapter_model.safetensors", "adapter_config.json"]


def test_a_folder_with_gguf_files_brings_only_them(tmp_path):
    fill(tmp_path, "b.gguf", "a.gguf", "config.json")
    assert found(tmp_path) == ["a.gguf", "b.gguf"]


def test_a_file_of_another_kind_is_named_before_it_is_sent(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(CommandError, match=r"notes\.txt is no GGUF file$"):
        model_files(tmp_path / "notes.txt")


def test_what_is_no_model(tmp_path):
    fill(tmp_path / "a", "notes.txt")
    with pytest.raises(CommandError, match=r"^no Modelfile or safetensors files found$"):
        model_files(tmp_path / "a")
    fill(tmp_path / "b", "other.gguf")
    (tmp_path / "a" / "model.safetensors").symlink_to(tmp_path / "b" / "other.gguf")
    with pytest.raises(CommandError, match=r"^insecure path: "):
        model_files(tmp_path / "a")


def opaque(folder):
    return {name: path.read_bytes() for name, path in opaque_files(folder).items()}


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
    with pytest.raises(CommandError, match=r"insecure path|neither a file nor a folder"):
        opaque_files(tmp_path / "inside")


def test_what_has_no_files(tmp_path):
    with pytest.raises(CommandError, match="has no files"):
        opaque_files(tmp_path)
    with pytest.raises(CommandError, match="no such file"):
        opaque_files(tmp_path / "nosuch")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CommandError, match="neither a file nor a folder"):
        opaque_files(tmp_path)
