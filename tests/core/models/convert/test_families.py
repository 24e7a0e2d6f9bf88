"""What llama.cpp says with a converted model is what the original's formulas say, worked out with numpy.

A wrong order of rows, a forgotten norm or a wrong frequency changes logits by as much as they differ among themselves
(2 to 3); what the engine rounds, by less than a twentieth of that.
"""

import numpy as np
import pytest
from tests.core.models.convert import folders, forward

from puna.models.convert import families
from puna.models.convert.failure import UnsupportedError
from puna.models.convert.folder import Folder

TOKENS = [3, 80, 100, 257, 270, 40, 260, 99, 61, 262, 200, 30]


@pytest.mark.parametrize("name", folders.DECODERS)
def test_logits_are_the_originals(name, convert, tmp_path):
    folder = folders.DECODERS[name]()
    found = convert(folder.write(tmp_path / name, kind="F16")).logits(TOKENS)
    wanted = forward.logits(folder, TOKENS)[-1]
    assert found[: len(wanted)] == pytest.approx(wanted, abs=0.12)
    assert wanted.std() > 1.5


def test_a_wrong_order_of_rows_would_be_seen(convert, tmp_path):
    folder = folders.llama()
    found = convert(folder.write(tmp_path / "m", kind="F16")).logits(TOKENS)
    name = "model.layers.0.self_attn.k_proj.weight"
    folder.tensors[name] = folder.tensors[name][::-1]
    assert np.abs(found - forward.logits(folder, TOKENS)[-1]).max() > 0.5


def test_brain_floats_stay_what_they_are(convert, tmp_path):
    folder = folders.llama()
    converted = convert(folder.write(tmp_path / "m", kind="BF16", shards=3))
    kinds = {name: tensor.tensor_type.name for name, tensor in converted.tensors().items()}
    assert kinds["token_embd.weight"] == kinds["blk.0.attn_q.weight"] == "BF16"
    assert kinds["output_norm.weight"] == kinds["blk.1.ffn_norm.weight"] == "F32"
    assert converted.logits(TOKENS) == pytest.approx(forward.logits(folder, TOKENS)[-1], abs=0.3)


def test_single_precision_becomes_half(convert, tmp_path):
    converted = convert(folders.llama().write(tmp_path / "m", kind="F32"))
    assert {tensor.tensor_type.name for tensor in converted.tensors().values()} == {"F16", "F32"}
    assert converted.keys()["general.file_type"] == 1


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_the_originals(pooling, convert, tmp_path):
    from llama_cpp import LLAMA_POOLING_TYPE_UNSPECIFIED, Llama

    folder = folders.bert(pooling)
    converted = convert(folders.write_sentences(folder, tmp_path / "m", kind="F16"))
    model = Llama(
        str(converted.path), embedding=True, pooling_type=LLAMA_POOLING_TYPE_UNSPECIFIED, n_ctx=64, verbose=False
    )
    found = model.embed("the cats sat", normalize=True)
    model.close()
    known = folder.files["tokenizer.json"]["model"]["vocab"]
    tokens = [known[each] for each in ("[CLS]", "the", "cat", "##s", "sat", "[SEP]")]
    assert found == pytest.approx(forward.embedding(folder, tokens), abs=0.003)


@pytest.mark.parametrize("said", [True, None])
def test_a_tied_model_has_no_output_of_its_own(said, convert, tmp_path):
    tied = folders.llama(tie_word_embeddings=said)
    del tied.tensors["lm_head.weight"]
    converted = convert(tied.write(tmp_path / "m", kind="F16"))
    assert "output.weight" not in converted.tensors()
    assert converted.logits(TOKENS) == pytest.approx(forward.logits(tied, TOKENS)[-1], abs=0.12)


def test_the_text_part_of_a_model_that_sees(convert, tmp_path):
    folder = folders.gemma3()
    wanted = forward.logits(folder, TOKENS)[-1]
    text = folder.config
    folder.config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    folder.tensors = {f"language_model.{name}": values for name, values in folder.tensors.items()}
    folder.add("vision_tower.vision_model.embeddings.patch_embedding.bias", 8)
    folder.add("multi_modal_projector.mm_soft_emb_norm.weight", 8)
    assert convert(folder.write(tmp_path / "m", kind="F16")).logits(TOKENS) == pytest.approx(wanted, abs=0.12)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"architectures": ["FooForCausalLM"]}, 'unsupported architecture "FooForCausalLM"'),
        ({"architectures": []}, "unknown architecture"),
        ({}, "unknown architecture"),
        ({"architectures": ["LlamaForCausalLM"], "quantization_config": {}}, "unsupported quantization_config: .*"),
    ],
)
def test_what_nobody_knows_is_refused_by_name(config, text, tmp_path):
    folder = folders.Folder(config, {})
    with pytest.raises(UnsupportedError, match=f"^{text}$"):
        families.family(Folder(folder.write(tmp_path)))


def test_a_decoder_that_makes_vectors(convert, tmp_path):
    """As Qwen has them: the tensors lack the beginning of their names, and the last token is the vector."""
    folder = folders.qwen3()
    folder.config["tie_word_embeddings"] = True
    del folder.tensors["lm_head.weight"]
    folder.tensors = {name.removeprefix("model."): values for name, values in folder.tensors.items()}
    folder.pooling = "lasttoken"
    converted = convert(folders.write_sentences(folder, tmp_path / "m"))
    assert converted.keys()["qwen3.pooling_type"] == 3
    assert converted.keys().get("qwen3.normalize_embeddings") is None
