#!/usr/bin/env python3
"""Write glimpser.gguf, a tiny Cohere2 of random weights: three of its four layers see the last 32 tokens only. Needs:
numpy, gguf.

It babbles like chatter.gguf, whose words it has.
"""

import sys
from pathlib import Path

import gguf
import numpy as np
from make_chatter import TOKENS, add_vocabulary, write

HIDDEN, FORWARD, HEADS, LAYERS, WINDOW = 32, 48, 2, 4, 32


def glimpser(path: Path) -> None:
    w = gguf.GGUFWriter(path, "cohere2")
    w.add_name("glimpser")
    w.add_context_length(2048)
    w.add_embedding_length(HIDDEN)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FORWARD)
    w.add_head_count(HEADS)
    w.add_head_count_kv(HEADS)
    w.add_layer_norm_eps(1e-5)
    w.add_sliding_window(WINDOW)
    w.add_logit_scale(0.3)
    w.add_rope_dimension_count(HIDDEN // HEADS)
    w.add_vocab_size(len(TOKENS))
    w.add_file_type(0)
    add_vocabulary(w)
    rng = np.random.default_rng(5)

    def add(name: str, *shape: int, std: float) -> None:
        w.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(std))

    add("token_embd.weight", len(TOKENS), HIDDEN, std=1.0)
    w.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        w.add_tensor(block + "attn_norm.weight", np.ones(HIDDEN, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}{name}.weight", HIDDEN, HIDDEN, std=0.4)
        add(block + "ffn_gate.weight", FORWARD, HIDDEN, std=0.15)
        add(block + "ffn_up.weight", FORWARD, HIDDEN, std=0.15)
        add(block + "ffn_down.weight", HIDDEN, FORWARD, std=0.15)
    write(w)


if __name__ == "__main__":
    glimpser(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent) / "glimpser.gguf")
