import struct
from pathlib import Path

import pytest

from puna_ctransformers.header import GGUFError, Header

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "core/puna/demo/llamita.gguf"


def test_a_models_metadata():
    header = Header(DEMO)
    assert header.text("general.architecture") == "llama"
    assert header.text("tokenizer.ggml.model") == "llama"
    assert header.number("block_count") > 0
    assert len(header.texts("tokenizer.ggml.tokens")) == len(header.numbers("tokenizer.ggml.token_type"))
    assert header.file_bytes == DEMO.stat().st_size


def test_what_is_not_there():
    header = Header(DEMO)
    assert header.number("no.such.number", 7) == 7
    assert header.text("no.such.text") == ""


def test_the_cache_has_keys_and_values_for_each_layer(tmp_path):
    path = tmp_path / "m.gguf"
    numbers = {"block_count": 3, "embedding_length": 64, "attention.head_count": 8, "attention.head_count_kv": 2}
    values = [(b"general.architecture", struct.pack("<IQ5s", 8, 5, b"llama"))]
    values += [(f"llama.{key}".encode(), struct.pack("<II", 4, number)) for key, number in numbers.items()]
    packed = b"".join(struct.pack("<Q", len(key)) + key + value for key, value in values)
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(values)) + packed)
    assert Header(path).cache_bytes(100) == 100 * 3 * 16 * 2 * 2


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "EOF"),
        (b"PK\3\4 and more", "invalid file magic"),
        (DEMO.read_bytes()[:1000], "unexpected EOF"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"a", 99), "invalid type: 99"),
    ],
)
def test_what_is_no_gguf_is_refused(tmp_path, content, text):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(GGUFError, match=text):
        Header(path)
