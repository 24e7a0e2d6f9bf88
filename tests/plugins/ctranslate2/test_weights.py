"""The header of model.bin."""

import pytest

from puna.backend import InvalidRequestError
from puna_ctranslate2 import weights


def test_a_decoder(decoder):
    found = weights.read(decoder / "model.bin")
    assert found.architecture == weights.DECODER
    assert found.shapes["decoder/embeddings/weight"] == (1446, 128)
    assert (found.positions, found.vocabulary_size) == (0, 1446)
    assert found.cache_bytes(10) == 6 * 2 * 128 * 10 * 4
    assert found.file_bytes == (decoder / "model.bin").stat().st_size


def test_an_encoder(encoder):
    found = weights.read(encoder / "model.bin")
    assert (found.architecture, found.positions) == (weights.ENCODER, 512)
    assert found.vocabulary_size == 3063


def test_a_decoder_with_fewer_heads_of_keys():
    shapes = {
        "decoder/layer_0/self_attention/linear_0/weight": (64 + 2 * 16, 64),
        "decoder/layer_0/self_attention/linear_1/weight": (64, 64),
    }
    assert weights.Weights(weights.DECODER, shapes, 0).cache_bytes(1) == 2 * 16 * 4


@pytest.mark.parametrize("length", [0, 3, 20, 1000, 100_000])
def test_a_file_that_is_cut_off_is_refused(decoder, tmp_path, length):
    cut = tmp_path / "model.bin"
    cut.write_bytes((decoder / "model.bin").read_bytes()[:length])
    with pytest.raises(InvalidRequestError):
        weights.read(cut)


@pytest.mark.parametrize(
    "content", [b"GGUF" * 100, b"\x06\0\0\0" + b"\xff" * 100, b"\x06\0\0\0\x01\0\0" + b"\xff" * 99]
)
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError):
        weights.read(path)
