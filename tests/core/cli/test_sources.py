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


def test_files_that_are_kept_as_they_are(tmp_path):
    fill(tmp_path, "config.json", "a/b.bin")
    assert list(opaque_files(tmp_path)) == ["a/b.bin", "config.json"]
    with pytest.raises(CommandError, match="no such file"):
        opaque_files(tmp_path / "nosuch")
