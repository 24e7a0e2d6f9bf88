"""Which files are accepted as draft models, and that others cost nothing but a warning."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from tools.architectures import make

MODELS = Path(__file__).parents[2] / "models"
NORM, DOWN = "blk.0.attn_norm.weight", "blk.1.ffn_down.weight"


def head(path):
    """Write a file with no more than the architecture of a head."""
    writer = gguf.GGUFWriter(path, "dflash")
    writer.add_tensor("fc.weight", np.ones((4, 4), np.float32))
    written(writer)


def written(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def opened(parts, draft, **spec):
    return parts(draft_path=str(draft), **{"draft_tokens": 4, **spec}).speculator


def test_a_model_with_the_same_vocabulary_drafts(parts):
    assert opened(parts, MODELS / "chatter.gguf").model is not None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("jinja.gguf", "its vocabulary has "),
        ("embedder.gguf", "it generates no text"),
        ("chatter-lora.gguf", "it is an adapter and no model"),
        ("chatter-eye.gguf", "it is a projector and no model"),
        ("wanderer.gguf", "rejected tokens cannot be removed from its memory"),
        ("missing.gguf", "No such file"),
    ],
)
def test_what_cannot_draft_is_left_out_with_a_warning(parts, name, reason, caplog):
    assert opened(parts, MODELS / name).model is None
    [record] = [each for each in caplog.records if "no tokens are drafted with the draft model" in each.getMessage()]
    assert record.levelname == "WARNING"
    assert reason in record.getMessage()


def test_another_order_of_tokens_is_another_vocabulary(parts, tmp_path, caplog):
    data = (MODELS / "chatter.gguf").read_bytes()
    other = tmp_path / "other.gguf"
    other.write_bytes(data.replace(b"grass", b"straw"))
    assert opened(parts, other).model is None
    assert "its vocabulary has another token 259 than the model's" in caplog.text


def changed(path, key, value):
    """Write the first draft model with another number in its metadata."""
    data, name = (MODELS / "chatter.gguf").read_bytes(), b"llama." + key
    at = data.index(name) + len(name) + 4  # behind the number of its type
    path.write_bytes(data[:at] + struct.pack("<I", value) + data[at + 4 :])


@pytest.mark.parametrize("layers", [0, 513, 2**31])
def test_a_draft_model_with_a_number_of_layers_that_llama_cpp_aborts_on_is_left_out(parts, tmp_path, layers, caplog):
    changed(tmp_path / "changed.gguf", b"block_count", layers)
    assert opened(parts, tmp_path / "changed.gguf").model is None
    assert f"it has {layers} layers, and llama.cpp runs 1 to 512" in caplog.text


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"nextn_predict_layers": 3}, "3 of its 2 layers draft"),
        ({"expert_count": 2, "expert_used_count": 3}, "it uses 3 of 2 experts"),
        ({"expert_count": 2, "expert_used_count": 0}, "it uses 0 of 2 experts"),
        ({"expert_used_count": 1}, "it uses 1 of 0 experts"),
        ({"expert_count": 4096, "expert_used_count": 1}, "it uses 1 of 4096 experts"),
    ],
)
def test_a_draft_model_with_numbers_that_llama_cpp_aborts_on_is_left_out(parts, tmp_path, keys, reason, caplog):
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "llama")
    for key, value in {"block_count": 2, **keys}.items():
        writer.add_uint32(f"llama.{key}", value)
    written(writer)
    assert opened(parts, tmp_path / "odd.gguf").model is None
    assert reason in caplog.text


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_draft_model_that_is_cut_off_is_left_out(parts, tmp_path, share, caplog):
    data = (MODELS / "chatter.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(data[: int(share * len(data))])
    assert opened(parts, tmp_path / "cut.gguf").model is None
    assert "EOF" in caplog.text or "exceeds file size" in caplog.text


@pytest.mark.parametrize(
    ("architecture", "change", "reason"),
    [
        ("llama", lambda weights: weights.clear(), "tensor 'token_embd.weight' not found"),
        ("llama", lambda weights: weights.update({NORM: weights[NORM].astype(np.float16)}), "ggml cannot compute"),
        ("llama", lambda weights: weights.update({DOWN: weights[DOWN].astype(np.float64)}), "ggml cannot compute"),
        ("llada", lambda _: None, "writes text by diffusion"),
        ("t5", lambda _: None, "is an encoder with a decoder"),
    ],
)
def test_what_llama_cpp_loads_and_cannot_run_is_left_out(parts, tmp_path, architecture, change, reason, caplog):
    """A file without tensors, tensors of types that ggml has no code for, and other kinds of models."""
    make.make(tmp_path / "model.gguf", "llama")
    make.make(tmp_path / "draft.gguf", architecture, change=change)
    assert opened(parts, tmp_path / "draft.gguf", path=str(tmp_path / "model.gguf")).model is None
    assert reason in caplog.text


def test_a_head_is_not_tried(parts, tmp_path, caplog):
    head(tmp_path / "head.gguf")
    assert opened(parts, tmp_path / "head.gguf").model is None
    assert "a head of the architecture dflash is not run" in caplog.text


@pytest.mark.parametrize("spec", [{"draft_tokens": 0}, {"backend_options": {"speculative_decoding": False}}])
def test_a_draft_model_that_is_not_wanted_is_not_opened(parts, spec, caplog):
    speculator = opened(parts, MODELS / "missing.gguf", **spec)
    assert speculator is None or speculator.model is None
    assert caplog.text == ""


async def test_a_model_writes_beside_a_file_of_no_use(load, write):
    texts, _ = await write(await load(), "hello")
    assert (await write(await load(draft_path=str(MODELS / "jinja.gguf"), draft_tokens=4), "hello"))[0] == texts


def test_a_draft_model_may_have_a_shorter_context(parts, tmp_path):
    data = (MODELS / "chatter.gguf").read_bytes()
    key = b"llama.context_length" + struct.pack("<I", 4)  # of the type of a 32-bit number
    assert data.count(key + struct.pack("<I", 2048)) == 1
    shorter = tmp_path / "shorter.gguf"
    shorter.write_bytes(data.replace(key + struct.pack("<I", 2048), key + struct.pack("<I", 512)))
    found = parts(context_length=2048, draft_path=str(shorter), draft_tokens=4)
    assert (found.context.length, found.speculator.model._context.length) == (2048, 512)
