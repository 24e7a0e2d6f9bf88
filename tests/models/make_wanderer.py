#!/usr/bin/env python3
"""Write wanderer.gguf, a tiny Mamba of random weights: a model whose memory cannot be taken back. Needs: numpy, gguf.

It babbles like chatter.gguf, whose words it has.
"""

import sys
from pathlib import Path

import gguf
import numpy as np
from make_chatter import TOKENS, add_vocabulary, write

HIDDEN, INNER, STATE, RANK, CONVOLUTION, LAYERS = 32, 64, 8, 4, 4, 2


def wanderer(path: Path) -> None:
    w = gguf.GGUFWriter(path, "mamba")
    w.add_name("wanderer")
    w.add_context_length(2048)
    w.add_embedding_length(HIDDEN)
    w.add_feed_forward_length(0)
    w.add_head_count(0)
    w.add_block_count(LAYERS)
    w.add_ssm_conv_kernel(CONVOLUTION)
    w.add_ssm_inner_size(INNER)
    w.add_ssm_state_size(STATE)
    w.add_ssm_time_step_rank(RANK)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_file_type(0)
    add_vocabulary(w)
    rng = np.random.default_rng(11)

    def add(name: str, *shape: int, std: float) -> None:
        w.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(std))

    add("token_embd.weight", len(TOKENS), HIDDEN, std=1.0)
    output = rng.standard_normal((len(TOKENS), HIDDEN), dtype=np.float32) * np.float32(0.05)
    output[259:] = rng.standard_normal((len(TOKENS) - 259, HIDDEN), dtype=np.float32) * np.float32(0.6)
    w.add_tensor("output.weight", output)
    w.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        w.add_tensor(block + "attn_norm.weight", np.ones(HIDDEN, np.float32))
        add(block + "ssm_in.weight", 2 * INNER, HIDDEN, std=0.3)
        add(block + "ssm_conv1d.weight", INNER, CONVOLUTION, std=0.4)
        add(block + "ssm_conv1d.bias", INNER, std=0.1)
        add(block + "ssm_x.weight", RANK + 2 * STATE, INNER, std=0.3)
        add(block + "ssm_dt.weight", INNER, RANK, std=0.5)
        add(block + "ssm_dt.bias", INNER, std=0.5)
        w.add_tensor(block + "ssm_a", -np.tile(np.linspace(0.02, 0.5, STATE, dtype=np.float32), (INNER, 1)))
        add(block + "ssm_d", INNER, std=0.5)
        add(block + "ssm_out.weight", HIDDEN, INNER, std=0.4)
    write(w)


if __name__ == "__main__":
    wanderer(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent) / "wanderer.gguf")
