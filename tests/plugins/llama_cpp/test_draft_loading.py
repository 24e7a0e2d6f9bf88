"""Which files are accepted as draft models, and that others cost nothing but a warning."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

MODELS = Path(__file__).parents[2] / "models"


def head(path):
    """Write a file with no more than the architecture of a head."""
    writer = gguf.GGUFWriter(path, "dflash")
    writer.add_tensor("fc.weight", np.ones((4, 4), np.float32))
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
        ("chatter-lora.gguf", ""),
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
