import math
import os
import struct
from pathlib import Path

import pytest

from puna.gguf import reader as gguf
from puna.gguf.reader import GGUFError
from puna.go.json import Float32


@pytest.fixture
def read(tmp_path, make_gguf):
    def read(*pairs, arrays=False, tokenizer=True, peek=False, **how):
        path = tmp_path / "a.gguf"
        path.write_bytes(make_gguf(("general.architecture", "str", "zed"), *pairs, **how))
        return gguf.peek(path) if peek else gguf.read(path, arrays=arrays, tokenizer=tokenizer)

    return read


def test_values_of_all_types_are_read(read):
    head = read(
        ("a", "u8", 200), ("b", "i8", -5), ("c", "u16", 65535), ("d", "i16", -2), ("e", "u32", 2**32 - 1),
        ("f", "i32", -3), ("g", "f32", 1e-5), ("h", "bool", True), ("i", "str", "é<"), ("j", "u64", 2**63 + 5),
        ("k", "i64", -7), ("l", "f64", 0.1),
    )  # fmt: skip
    small = Float32(struct.unpack("f", struct.pack("f", 1e-5))[0])
    values = [200, -5, 65535, -2, 2**32 - 1, -3, small, True, "é<", 2**63 + 5, -7, 0.1]
    assert [head.metadata[key] for key in "abcdefghijkl"] == values
    assert isinstance(head.metadata["g"], Float32)
    assert list(head.metadata)[:2] == ["general.architecture", "a"]


def test_arrays_are_skipped_unless_wanted(read):
    pairs = [("s", "arr", ("str", ["x", "yy"])), ("n", "arr", ("u32", [1, 2])), ("e", "arr", ("f32", []))]
    head = read(*pairs, ("after", "u8", 1))
    assert [head.metadata[key].values for key in "sne"] == [None, None, ()]
    assert [head.metadata[key].length for key in "sne"] == [2, 2, 0]
    assert head.metadata["after"] == 1
    whole = read(*pairs, ("after", "u8", 1), arrays=True)
    assert [whole.metadata[key].values for key in "sne"] == [("x", "yy"), (1, 2), ()]


def test_the_arrays_of_the_tokenizer_can_be_skipped_alone(read):
    pairs = [("tokenizer.ggml.tokens", "arr", ("str", ["x", "yy"])), ("zed.layers", "arr", ("u32", [1, 2]))]
    head = read(*pairs, arrays=True, tokenizer=False)
    assert [head.metadata[key].values for key, _, _ in pairs] == [None, (1, 2)]
    assert head.metadata["tokenizer.ggml.tokens"].length == 2


def test_tensors_are_listed_with_shape_and_type(read):
    head = read(tensors=[("t", (32, 2), 8, bytes(68)), ("u", (3,), 0, bytes(12)), ("s", (), 0, bytes(4))])
    assert [(each.name, each.type, each.shape) for each in head.tensors] == [
        ("t", "Q8_0", (32, 2)), ("u", "F32", (3,)), ("s", "F32", ()),
    ]  # fmt: skip
    assert head.parameter_count == 68
    assert head.data_start % 32 == 0


def test_keys_belong_to_the_architecture_unless_general(read):
    head = read(
        ("zed.context_length", "u32", 7), ("general.file_type", "u32", 7), ("tokenizer.ggml.model", "str", "gpt2")
    )
    assert head.architecture == "zed"
    assert head.integer("context_length") == 7
    assert head.file_type == "Q8_0"
    assert head.text("tokenizer.ggml.model") == "gpt2"
    assert not head.has("pooling_type")
    assert head.integer("general.architecture") == 0


@pytest.mark.parametrize(
    ("kind", "value", "name"), [("u32", 0, "F32"), ("i32", 15, "Q4_K_M"), ("u32", 5555, "unknown")]
)
def test_file_types_have_names(read, kind, value, name):
    assert read(("general.file_type", kind, value)).file_type == name


def test_a_file_that_does_not_say_its_type_is_unknown(read):
    assert read().file_type == "unknown"


def test_peeking_stops_before_the_vocabulary(read):
    head = read(("zed.a", "u8", 1), ("tokenizer.x", "arr", ("str", ["a"])), ("zed.b", "u8", 2), peek=True)
    assert (head.has("a"), head.has("b"), head.tensors) == (True, False, ())


def test_old_and_swapped_files_are_read(tmp_path):
    path = tmp_path / "a.gguf"
    key, value = b"general.architecture\0", b"one\0"
    old = b"GGUF" + struct.pack("<III", 1, 0, 1) + struct.pack("<I", len(key)) + key
    path.write_bytes(old + struct.pack("<I", 8) + struct.pack("<I", len(value)) + value)
    assert gguf.read(path).architecture == "one"
    key = key.rstrip(b"\0")
    swapped = b"FUGG" + struct.pack(">IQQ", 3, 0, 1) + struct.pack(">Q", len(key)) + key
    path.write_bytes(swapped + struct.pack(">I", 8) + struct.pack(">Q", 3) + b"two")
    assert gguf.read(path).architecture == "two"


def test_bytes_that_are_no_text_are_kept_apart(read):
    assert read(("a", "str", b"\xff!")).metadata["a"] == "\udcff!"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "EOF"),
        (b"GGUF", "EOF"),
        (b"GGUF\3\0\0\0", "EOF"),
        (b"GGUF\3\0\0\0" + bytes(9), "unexpected EOF"),
        (b"GGML" + bytes(40), "invalid file magic"),
    ],
)
def test_what_is_no_gguf_is_refused_as_the_reference_does(tmp_path, data, text):
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(GGUFError, match=f"^{text}$"):
        gguf.read(path)


def test_every_cut_of_a_file_is_told_from_a_whole_one(tmp_path, make_gguf):
    whole = make_gguf(
        ("general.architecture", "str", "z"), ("a", "arr", ("str", ["x", "y"])), ("b", "arr", ("u16", [1]))
    )
    path = tmp_path / "a.gguf"
    for length in range(len(whole) - 17):
        path.write_bytes(whole[:length])
        with pytest.raises(GGUFError):
            gguf.read(path)


def test_tensors_must_fit_in_the_file(read):
    with pytest.raises(GGUFError, match=r'^tensor "v.y" offset\+size \(\d+\) exceeds file size \(\d+\)$'):
        read(tensors=[("v.x", (32,), 0, bytes(128)), ("v.y", (64,), 0, bytes(128))])
    with pytest.raises(GGUFError, match=r'^tensor "v.x" dimensions 5 exceeds maximum 4$'):
        read(tensors=[("v.x", (1, 1, 1, 1, 1), 0, bytes(4))])
    with pytest.raises(GGUFError, match=r'^tensor "v.x" size overflow$'):
        read(tensors=[("v.x", (1,), 99, bytes(4))])


def test_absurd_lengths_are_refused_without_reading_them(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 40) + bytes(64))
    with pytest.raises(GGUFError, match="string length"):
        gguf.read(path)


def test_the_scripted_models_are_read(scripted_models):
    head = gguf.read(scripted_models / "scripted.gguf")
    assert (head.architecture, head.parameter_count, len(head.tensors)) == ("llama", 184_192, 12)
    assert math.isclose(head.get("attention.layer_norm_rms_epsilon"), 1e-5, rel_tol=1e-6)
    assert gguf.is_gguf(scripted_models / "scripted.gguf")
    assert not gguf.is_gguf(scripted_models / "make_models.py")


@pytest.fixture
def wide(tmp_path, make_gguf):
    """A file whose head takes many pieces."""
    path = tmp_path / "wide.gguf"
    words = ["word" * (number % 40) for number in range(5000)]
    pairs = [("general.architecture", "str", "z"), ("words", "arr", ("str", words)), ("after", "u8", 7)]
    path.write_bytes(
        make_gguf(*pairs, ("numbers", "arr", ("u32", list(range(50_000)))), ("last", "str", "x" * 300_000))
    )
    return path, words


def test_a_head_is_read_in_pieces(wide):
    path, words = wide
    whole, skimmed = gguf.read(path, arrays=True), gguf.read(path)
    assert whole.metadata["words"].values == tuple(words)
    assert whole.metadata["numbers"].values == tuple(range(50_000))
    for head in (whole, skimmed):
        assert (head.metadata["after"], head.metadata["last"]) == (7, "x" * 300_000)
    assert skimmed.metadata["words"].length == 5000
    assert skimmed.data_start == whole.data_start == path.stat().st_size - 32  # of its one tensor


@pytest.mark.parametrize("arrays", [True, False])
@pytest.mark.parametrize("length", [0, 70_000, 600_000])
def test_a_file_that_is_truncated_while_it_is_read_is_refused(wide, arrays, length):
    path, _ = wide
    with path.open("rb") as file:
        pairs = gguf._Reader(file).metadata(arrays=arrays)
        next(pairs)
        os.truncate(path, length)
        with pytest.raises(GGUFError, match="EOF"):
            list(pairs)


def test_a_string_in_an_array_that_is_longer_than_any_file_is_refused(tmp_path):
    path = tmp_path / "a.gguf"
    for length in (1 << 40, (1 << 63) - 8, 1 << 63, (1 << 64) - 1):
        array = struct.pack("<IIQQ", 9, 8, 2, length) + bytes(64)
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + array)
        with pytest.raises(GGUFError, match=r"^unexpected EOF$"):
            gguf.read(path)


@pytest.mark.parametrize("piece", [4, 24, 64, 1000])
def test_strings_that_cross_blocks_of_the_file(monkeypatch, piece):
    path = Path(__file__).parents[2] / "models" / "scripted.gguf"
    whole = gguf.read(path, arrays=True)
    monkeypatch.setattr(gguf, "_FIRST_BLOCK", max(piece, 24))
    monkeypatch.setattr(gguf, "_LARGEST_BLOCK", piece)
    assert gguf.read(path, arrays=True) == whole
