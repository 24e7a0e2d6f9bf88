from pathlib import Path

import pytest
from tests.core.models.conftest import write_gguf

from puna.errors import InvalidCreateError
from puna.models.upkeep.scan import find, name_of

ARCHITECTURE = ("general.architecture", "str", "zed")
PROJECTOR = ("general.type", "str", "mmproj")


def put(folder, name, *pairs):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_gguf(ARCHITECTURE, *pairs))
    return path


def described(folder):
    found, skipped = find([folder])
    models = {
        each.name: [path.relative_to(folder).as_posix() for path in (*each.files, *each.projectors)] for each in found
    }
    return models, {each.path.relative_to(folder).as_posix(): each.reason for each in skipped}


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("SmolLM2-135M-Instruct-Q8_0", "smollm2-135m-instruct:q8_0"),
        ("llama-2-7b.Q4_K_M", "llama-2-7b:q4_k_m"),
        ("Qwen3-0.6B-UD-IQ2_XXS", "qwen3-0.6b:ud-iq2_xxs"),
        ("gpt-oss-20b-mxfp4", "gpt-oss-20b:mxfp4"),
        ("gemma-3-4b-it-qat-bf16", "gemma-3-4b-it-qat:bf16"),
        ("Em Bed (neu)", "em-bed-neu:latest"),
        ("ggml-model-f16", "folder:f16"),
        ("Q4_0", "folder:q4_0"),
        ("model", "folder:latest"),
        ("Übung", "bung:latest"),
        ("漢字", "model:latest"),
        ("x" * 100, "x" * 80 + ":latest"),
    ],
)
def test_names(stem, name):
    assert name_of(stem, Path("/models/Folder-GGUF")) == name


def test_the_folders_of_hubs_have_names_too():
    revision = "0123456789abcdef0123456789abcdef01234567"
    assert name_of("model", Path(f"/hub/models--org--Kid-GGUF/snapshots/{revision}")) == "kid:latest"


def test_what_belongs_together(tmp_path):
    for name in ("a-Q8_0.gguf", "deep/er/b.gguf", "notes.txt"):
        put(tmp_path, name)
    put(tmp_path, "seeing/gemma-Q4_0.gguf")
    put(tmp_path, "seeing/gemma-Q8_0.gguf")
    put(tmp_path, "seeing/mmproj-F32.gguf", PROJECTOR)
    put(tmp_path, "seeing/mmproj-F16.gguf", PROJECTOR)
    put(tmp_path, "two/left-Q8_0.gguf")
    put(tmp_path, "two/right-Q8_0.gguf")
    put(tmp_path, "two/mmproj-right-f16.gguf", PROJECTOR)
    put(tmp_path, "two/mmproj-f16.gguf", PROJECTOR)
    for part in (1, 2):
        put(tmp_path, f"split/big-Q4_K_M-0000{part}-of-00002.gguf")
    models, skipped = described(tmp_path)
    assert models == {
        "a:q8_0": ["a-Q8_0.gguf"],
        "b:latest": ["deep/er/b.gguf"],
        "gemma:q4_0": ["seeing/gemma-Q4_0.gguf", "seeing/mmproj-F16.gguf"],
        "gemma:q8_0": ["seeing/gemma-Q8_0.gguf", "seeing/mmproj-F16.gguf"],
        "left:q8_0": ["two/left-Q8_0.gguf"],
        "right:q8_0": ["two/right-Q8_0.gguf", "two/mmproj-right-f16.gguf"],
        "big:q4_k_m": ["split/big-Q4_K_M-00001-of-00002.gguf", "split/big-Q4_K_M-00002-of-00002.gguf"],
    }
    lonely = "it is a projector, and no model beside it is known to be its own"
    assert skipped == {"seeing/mmproj-F32.gguf": lonely, "two/mmproj-f16.gguf": lonely}


def test_what_is_left_alone(tmp_path):
    put(tmp_path, "a/same.gguf")
    put(tmp_path, "b/same.gguf")
    put(tmp_path, "lora.gguf", ("general.type", "str", "adapter"))
    put(tmp_path, "big-00001-of-00003.gguf")
    (tmp_path / "empty.gguf").write_bytes(b"")
    whole = put(tmp_path, "cut.gguf").read_bytes()
    end = len(whole) - 16  # what follows is padding
    (tmp_path / "cut.gguf").write_bytes(whole[: end - 4])
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere.gguf")
    (tmp_path / "again").symlink_to(tmp_path)
    models, skipped = described(tmp_path)
    assert models == {"same:latest": ["a/same.gguf"]}
    assert skipped == {
        "b/same.gguf": f"{tmp_path}/a/same.gguf would be called same:latest too: import it by itself",
        "lora.gguf": "it is an adapter: name it in a Modelfile, after ADAPTER",
        "big-00001-of-00003.gguf": "only 1 of the 3 parts of the split model are there",
        "empty.gguf": "it cannot be read: it is no GGUF file",
        "cut.gguf": f'it cannot be read: tensor "v.x" offset+size ({end}) exceeds file size ({end - 4})',
    }


def test_a_link_to_a_file_is_followed_and_keeps_its_name(tmp_path):
    real = put(tmp_path, "store/0123abcd")
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots/kid-Q8_0.gguf").symlink_to(real)
    (found,) = find([tmp_path])[0]
    assert found.name == "kid:q8_0"
    (alone,) = find([real])[0]  # named outright, a file needs no ending
    assert alone.name == "0123abcd:latest"


@pytest.mark.parametrize(
    ("path", "text"), [("a.gguf", "must be absolute"), ("/nowhere/a", "no such file or directory")]
)
def test_paths_that_cannot_be(path, text):
    with pytest.raises(InvalidCreateError, match=text):
        find([Path(path)])
