"""An adapter changes what the model says as its two matrices, multiplied, change the model's own."""

import json
import math

import numpy as np
import pytest
from tests.core.models.convert import folders, forward
from tests.core.models.convert.test_families import TOKENS

from puna.models.convert.failure import ConversionError, UnsupportedError

CONFIG = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}
PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")


def adapter(folder, path, config=CONFIG, extra=None):
    """Write an adapter of a folder's model, and add to the model what it adds."""
    random, found = np.random.default_rng(3), {}
    scale = config.get("lora_alpha", 8) / (math.sqrt(8) if config.get("use_rslora") else 8)
    for layer in range(folders.LAYERS):
        for part in PARTS:
            name = f"model.layers.{layer}.{part}"
            out, into = folder.tensors[f"{name}.weight"].shape
            a = random.normal(0, 0.2, (8, into)).astype(np.float16).astype(np.float32)
            b = random.normal(0, 0.2, (out, 8)).astype(np.float16).astype(np.float32)
            found |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
            folder.tensors[f"{name}.weight"] = folder.tensors[f"{name}.weight"] + scale * (b @ a)
    path.mkdir()
    folders.write_safetensors(path / "adapter_model.safetensors", found | (extra or {}), "F32")
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def base(architecture="llama"):
    return {"architecture": architecture, "blocks": folders.LAYERS, "heads": 4, "kv_heads": 2}


@pytest.mark.parametrize(("name", "config"), [("llama", CONFIG | {"use_rslora": True}), ("qwen3", {"r": 8})])
def test_what_it_adds(name, config, convert, tmp_path):
    folder = folders.DECODERS[name]()
    model = convert(folder.write(tmp_path / "m", kind="F16"))
    lora = convert(adapter(folder, tmp_path / "a", config), base(name))
    found = model.logits(TOKENS, lora=str(lora.path))
    assert found == pytest.approx(forward.logits(folder, TOKENS)[-1], abs=0.12)
    assert np.abs(found - model.logits(TOKENS)).max() > 1


def test_keys_and_tensors(convert, tmp_path):
    found = convert(adapter(folders.llama(), tmp_path / "a"), base())
    keys = found.keys()
    assert {name: keys[name] for name in ("general.type", "adapter.type", "adapter.lora.alpha")} == {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 16.0,
    }
    tensors = found.tensors()
    assert len(tensors) == 2 * 2 * len(PARTS)
    assert tensors["blk.1.attn_k.weight.lora_b"].shape.tolist() == [8, 32]


EMBEDDING = "base_model.model.model.embed_tokens.lora_embedding_A"
HALF = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
OTHER = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
THIN = np.ones((8, 64), "f4")


@pytest.mark.parametrize(
    ("config", "extra", "to", "error", "text"),
    [
        (CONFIG, {EMBEDDING: THIN}, "llama", ConversionError, "is no part of a LoRA adapter for llama"),
        (CONFIG, {HALF.replace("up_proj", "foo"): THIN}, "llama", ConversionError, "is no part of a LoRA adapter"),
        (CONFIG, {HALF: THIN[0]}, "llama", ConversionError, "is no part of a LoRA adapter"),
        (CONFIG, {HALF: THIN}, "llama", ConversionError, "lacks its other half"),
        (CONFIG, {HALF: THIN, OTHER: THIN}, "llama", ConversionError, "has rank 8, its other half 64"),
        (CONFIG, {}, "bert", UnsupportedError, "^unsupported architecture$"),
        (CONFIG | {"peft_type": "IA3"}, {}, "llama", UnsupportedError, "only plain LoRA adapters"),
        (CONFIG | {"use_dora": True}, {}, "llama", UnsupportedError, "only plain LoRA adapters"),
        ({"lora_alpha": 16}, {}, "llama", ConversionError, '"r" is missing'),
    ],
)
def test_what_is_no_adapter(config, extra, to, error, text, convert, tmp_path):
    path = adapter(folders.llama(), tmp_path / "a", config, extra)
    with pytest.raises(error, match=text):
        convert(path, base(to))


def test_an_empty_adapter(convert, tmp_path):
    path = adapter(folders.llama(), tmp_path / "a")
    folders.write_safetensors(path / "adapter_model.safetensors", {})
    with pytest.raises(ConversionError, match=r"^there are no tensors in the adapter$"):
        convert(path, base())
    (path / "adapter_config.json").unlink()
    with pytest.raises(ConversionError, match=r"^open adapter_config\.json: no such file or directory$"):
        convert(path, base())
