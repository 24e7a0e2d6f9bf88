import json
import struct

import numpy as np
import pytest
from tests.core.models.convert.folders import write_safetensors

from puna.models.convert import safetensors
from puna.models.convert.failure import ConversionError

VALUES = np.array([[1.0, -2.5, 0.125], [3.0, 0.0, 65504.0]], np.float32)


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_numbers_come_back(kind, tmp_path):
    write_safetensors(tmp_path / "a.safetensors", {"x": VALUES, "y": VALUES[0]}, kind)
    found = safetensors.read(tmp_path / "a.safetensors")
    assert list(found) == ["x", "y"]
    assert (found["x"].kind, found["x"].shape) == (kind, (2, 3))
    assert found["x"].float32().tolist() == VALUES.tolist()


def test_brain_floats_are_the_upper_halves(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", {"x": VALUES[:1]}, "BF16")
    found = safetensors.read(tmp_path / "a.safetensors")["x"]
    assert found.values.tolist() == [[0x3F80, 0xC020, 0x3E00]]
    assert found.float32().tolist() == [[1.0, -2.5, 0.125]]


def test_numbers_need_not_be_aligned_and_may_be_none(tmp_path):
    path = tmp_path / "a.safetensors"
    header = {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    text += b" " * (3 - len(text) % 2)
    path.write_bytes(struct.pack("<Q", len(text)) + text + np.float32(1.5).tobytes())
    assert safetensors.read(path)["x"].float32().tolist() == [1.5]
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    assert safetensors.read(path) == {}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "unexpected EOF in the header"),
        (b"abc", "unexpected EOF in the header"),
        (struct.pack("<Q", 1 << 40) + b"{}", "unexpected EOF in the header"),
        (struct.pack("<Q", 4) + b'{"a"', "the header is not JSON"),
        (struct.pack("<Q", 2) + b"[]", "the header is not a JSON object"),
    ],
)
def test_a_broken_header(data, text, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(ConversionError, match=rf"^a\.safetensors: {text}"):
        safetensors.read(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}, "unexpected EOF"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 0]}, "unexpected EOF"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [-4, 4]}, "unexpected EOF"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}, "has 8 bytes"),
        ({"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}, "has the shape"),
        ({"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}, "has the shape"),
        ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "^unknown data type: F8_E4M3$"),
        ({"dtype": "F32", "shape": [2]}, "is not one of a tensor"),
        ([], "is not one of a tensor"),
    ],
)
def test_a_tensor_that_is_not_there(entry, text, tmp_path):
    header = json.dumps({"x": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ConversionError, match=text):
        safetensors.read(tmp_path / "a.safetensors")
