#!/usr/bin/env python3
"""Write the models of random weights that the tests of puna_llama_cpp need besides make_models.py. Needs: numpy, gguf.

chatter.gguf       A tiny llama that babbles words. Other than scripted.gguf it looks at all of its context, so that
                   what it says tells whether the KV cache holds what it should, and at a temperature it says something
                   else for every seed. It adds BOS, and `<|im_end|>` ends its babble.
chatter-lora.gguf  An adapter for it.
reader.gguf        The same architecture as a smaller model that embeds, by its last token.
ranker.gguf        embedder.gguf with a head that ranks.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

WORDS = [
    "",
    "grass",
    "llama",
    "hill",
    "wind",
    "sun",
    "stone",
    "river",
    "cloud",
    "wool",
    "night",
    "moon",
    "path",
    "herd",
    "snow",
    "lake",
    "reed",
    "star",
    "fire",
    "bread",
    "song",
]


def byte_char(value: int) -> str:
    """Return the printable stand-in that byte-level BPE vocabularies use for a byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if value in printable:
        return chr(value)
    return chr(256 + [b for b in range(256) if b not in printable].index(value))


CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*CONTROL, *map(byte_char, range(256)), *(byte_char(32) + word for word in WORDS[1:])]


def add_vocabulary(w: gguf.GGUFWriter) -> None:
    """Add TOKENS. A text begins with `<|im_start|>`, and `<|im_end|>` ends it."""
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(TOKENS)
    w.add_token_types([gguf.TokenType.CONTROL] * len(CONTROL) + [gguf.TokenType.NORMAL] * (len(TOKENS) - len(CONTROL)))
    w.add_token_merges(["h e"])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_add_bos_token(True)


def write(w: gguf.GGUFWriter) -> None:
    """Write a file whose metadata and tensors have been added."""
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def chatter(
    path: Path,
    hidden: int = 64,
    ff: int = 96,
    pooling: gguf.PoolingType | None = None,
    architecture: str = "llama",
) -> None:
    heads, layers, size = 4, 2, len(TOKENS)
    w = gguf.GGUFWriter(path, architecture)
    w.add_name("chatter")
    w.add_context_length(2048)
    w.add_embedding_length(hidden)
    w.add_block_count(layers)
    w.add_feed_forward_length(ff)
    w.add_head_count(heads)
    w.add_head_count_kv(2)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(hidden // heads)
    w.add_vocab_size(size)
    w.add_file_type(0)
    add_vocabulary(w)
    if pooling is not None:
        w.add_pooling_type(pooling)
    if architecture == "qwen2vl":
        w.add_rope_dimension_sections([1, 1, 2, 0])
    rng = np.random.default_rng(7)

    def add(name: str, *shape: int, std: float) -> None:
        w.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(std))

    add("token_embd.weight", size, hidden, std=1.0)
    output = rng.standard_normal((size, hidden), dtype=np.float32) * np.float32(0.05)
    output[259:] = rng.standard_normal((size - 259, hidden), dtype=np.float32) * np.float32(0.45)  # words are likely
    output[2] *= 5
    w.add_tensor("output.weight", output)
    w.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    for layer in range(layers):
        for name in ("attn_norm", "ffn_norm"):
            w.add_tensor(f"blk.{layer}.{name}.weight", np.ones(hidden, np.float32))
        add(f"blk.{layer}.attn_q.weight", hidden, hidden, std=0.25)
        add(f"blk.{layer}.attn_k.weight", hidden // 2, hidden, std=0.25)
        add(f"blk.{layer}.attn_v.weight", hidden // 2, hidden, std=0.25)
        add(f"blk.{layer}.attn_output.weight", hidden, hidden, std=0.25)
        add(f"blk.{layer}.ffn_gate.weight", ff, hidden, std=0.15)
        add(f"blk.{layer}.ffn_up.weight", ff, hidden, std=0.15)
        add(f"blk.{layer}.ffn_down.weight", hidden, ff, std=0.15)
    write(w)


def adapter(path: Path) -> None:
    w = gguf.GGUFWriter(path, "llama")
    w.add_type("adapter")
    w.add_string("adapter.type", "lora")
    w.add_float32("adapter.lora.alpha", 8.0)
    rng = np.random.default_rng(3)
    for name, inputs, outputs in (("blk.0.attn_q.weight", 64, 64), ("blk.1.ffn_up.weight", 64, 96)):
        w.add_tensor(name + ".lora_a", rng.standard_normal((4, inputs), dtype=np.float32) * np.float32(0.5))
        w.add_tensor(name + ".lora_b", rng.standard_normal((outputs, 4), dtype=np.float32) * np.float32(0.5))
    write(w)


def ranker(source: Path, path: Path) -> None:
    model = gguf.GGUFReader(source)
    w = gguf.GGUFWriter(path, "bert")
    for field in model.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "bert.pooling_type"):
            kind = field.types[0]
            of = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            w.add_key_value(field.name, field.contents(), kind, sub_type=of)
    w.add_pooling_type(gguf.PoolingType.RANK)
    for tensor in model.tensors:
        w.add_tensor(tensor.name, np.array(tensor.data))
    rng = np.random.default_rng(3)
    w.add_tensor("cls.weight", rng.standard_normal((32, 32), dtype=np.float32))
    w.add_tensor("cls.bias", np.zeros(32, np.float32))
    w.add_tensor("cls.output.weight", rng.standard_normal((1, 32), dtype=np.float32))
    w.add_tensor("cls.output.bias", np.zeros(1, np.float32))
    write(w)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    chatter(folder / "chatter.gguf")
    adapter(folder / "chatter-lora.gguf")
    chatter(folder / "reader.gguf", hidden=32, ff=48, pooling=gguf.PoolingType.LAST)
    ranker(Path(__file__).parent / "embedder.gguf", folder / "ranker.gguf")
