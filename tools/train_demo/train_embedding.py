"""Trains llamita-embed and writes it as GGUF: ``python -m train_demo.train_embedding --to FILE`` (see README.md)."""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from train_demo import encoder
from train_demo.encoder import Parameters, Shape
from train_demo.meanings import pair
from train_demo.wordpieces import CLS, MASK, PAD, SEP, UNK, WordPieces, learn
from train_demo.words import Random

Arrays = dict[str, NDArray[np.float32]]
Batch = dict[str, NDArray[Any]]
LENGTHS = (20, 20, 20, 20, 20, 28, 28, 96)
"""Tokens in a row of a batch, drawn for each. Two texts in three fit into the first."""


@partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def step(
    shape: Shape, parameters: Parameters, moments: Parameters, batch: Batch, rate: jax.Array, count: jax.Array
) -> tuple[Parameters, Parameters, jax.Array]:
    """One step of Adam with decoupled weight decay on the matrices."""
    value, gradient = jax.value_and_grad(encoder.loss)(parameters, shape, batch)
    new, kept = {}, {}
    for name, weight in parameters.items():
        g = gradient[name]
        first = 0.9 * moments[name + ".1"] + 0.1 * g
        second = 0.98 * moments[name + ".2"] + 0.02 * g * g
        update = first / (1 - 0.9**count) / (jnp.sqrt(second / (1 - 0.98**count)) + 1e-8)
        decay = 0.01 if name in encoder.MATRICES else 0.0
        new[name] = weight - rate * (update + decay * weight)
        kept[name + ".1"], kept[name + ".2"] = first, second
    return new, kept, value


def batch_of(pieces: WordPieces, rng: Random, size: int) -> Batch:
    """Pairs as token ids. Most batches hold short texts alone; of long ones there are fewer in a batch."""
    length = rng.choice(LENGTHS)
    meanings: list[str] = []
    rows = np.full((2, size * LENGTHS[0] // length, length), PAD, np.int32)
    while len(meanings) < rows.shape[1]:
        drawn = pair(rng)
        ids = [pieces.encode(text) for text in (drawn.one, drawn.other)]
        if max(map(len, ids)) <= length:
            for side, each in zip(rows, ids, strict=True):
                side[len(meanings), : len(each)] = each
            meanings.append(drawn.meaning)
    same = np.array([[i != j and m == n for j, n in enumerate(meanings)] for i, m in enumerate(meanings)], np.float32)
    return {"one": rows[0], "other": rows[1], "same": same}


def write(path: Path, shape: Shape, parameters: Arrays, pieces: WordPieces) -> None:
    """Write the model; matrices as F16 in llama.cpp's [out, in], the rest as F32."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("llamita-embed")
    writer.add_description("Puna's demo model for embeddings: tiny, trained from nothing on made text")
    writer.add_license("MIT")
    writer.add_size_label(f"{sum(p.size for p in parameters.values()) / 1e6:.1f}M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(shape.epsilon)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(list(pieces.pieces))
    writer.add_token_types([3] * 5 + [1] * (len(pieces) - 5))
    writer.add_token_type_count(2)
    for add, token in (
        (writer.add_unk_token_id, UNK),
        (writer.add_sep_token_id, SEP),
        (writer.add_pad_token_id, PAD),
        (writer.add_mask_token_id, MASK),
        (writer.add_bos_token_id, CLS),
        (writer.add_eos_token_id, SEP),
    ):
        add(token)

    def matrix(name: str, value: NDArray[np.float32]) -> None:
        writer.add_tensor(name, np.ascontiguousarray(value.astype(np.float16)))

    matrix("token_embd.weight", parameters["embed"])
    writer.add_tensor("position_embd.weight", parameters["positions"])
    writer.add_tensor("token_types.weight", np.zeros((2, shape.width), np.float32))
    writer.add_tensor("token_embd_norm.weight", parameters["norm"])
    writer.add_tensor("token_embd_norm.bias", parameters["norm.bias"])
    for i in range(shape.layers):
        for name, tensor in encoder.MATRICES.items():
            matrix(f"blk.{i}.{tensor}.weight", parameters[name][i].T)
            writer.add_tensor(f"blk.{i}.{tensor}.bias", parameters[name + ".bias"][i])
        for name in ("attention_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{encoder.NORMS[name]}.weight", parameters[name][i])
            writer.add_tensor(f"blk.{i}.{encoder.NORMS[name]}.bias", parameters[name + ".bias"][i])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Reads the command line, trains and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--minutes", type=float, help="end after this time instead, and let the rate fall by the clock")
    parser.add_argument("--batch", type=int, default=160, help="pairs in a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=30)
    options = parser.parse_args()
    rng = Random(options.seed)
    texts = [text for p in (pair(rng) for _ in range(20_000)) for text in (p.one, p.other)]
    pieces = WordPieces(learn(texts, whole=2000, parts=500))
    shape = Shape(len(pieces), layers=options.layers)
    parameters = encoder.initial(shape, options.seed)
    moments = {name + end: jnp.zeros_like(value) for name, value in parameters.items() for end in (".1", ".2")}
    print(json.dumps({"parameters": sum(p.size for p in parameters.values()), "vocabulary": len(pieces)}), flush=True)
    began, at, losses = time.monotonic(), 0, []

    def done() -> float:
        return (time.monotonic() - began) / 60 / options.minutes if options.minutes else at / options.steps

    while (over := done()) < 1:
        rate = options.rate * min(1.0, (at + 1) / 50, (1 - over) / 0.6)
        batch = batch_of(pieces, rng, options.batch)
        parameters, moments, value = step(shape, parameters, moments, batch, np.float32(rate), np.float32(at + 1))
        losses.append(value)
        at += 1
        if at % 50 == 0:
            mean, losses = float(np.mean([float(x) for x in losses])), []
            line = {"step": at, "loss": round(mean, 4), "minutes": round((time.monotonic() - began) / 60, 1)}
            print(json.dumps(line), flush=True)
    temporary = options.to.with_suffix(".part")
    write(temporary, shape, {name: np.asarray(value, np.float32) for name, value in parameters.items()}, pieces)
    temporary.replace(options.to)
    print(f"{options.to}: {options.to.stat().st_size} bytes, {at} steps")


if __name__ == "__main__":
    main()
