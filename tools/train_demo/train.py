"""Trains llamita: ``python -m train_demo.train --out DIR --steps N`` (see README.md beside this file)."""

import argparse
import json
import pickle
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train_demo import restore
from train_demo.batches import packed
from train_demo.conversation import prompt
from train_demo.network import MATRICES, Parameters, initial, loss
from train_demo.shape import Shape
from train_demo.skills import conversation
from train_demo.vocabulary import Vocabulary, learn
from train_demo.words import Random

Moments = dict[str, jax.Array]


def orthogonal(g: jax.Array) -> jax.Array:
    """The nearest orthogonal matrix, about: five Newton-Schulz steps (Muon, Jordan 2024). [layers, in, out]."""
    flip = g.shape[-2] > g.shape[-1]
    x = jnp.swapaxes(g, -1, -2) if flip else g
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(5):
        square = x @ jnp.swapaxes(x, -1, -2)
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return jnp.swapaxes(x, -1, -2) if flip else x


@partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def step(
    shape: Shape,
    parameters: Parameters,
    moments: Moments,
    batch: dict[str, jax.Array],
    rate: jax.Array,
    count: jax.Array,
) -> tuple[Parameters, Moments, jax.Array]:
    """One step: Muon on the layers' matrices, Adam on the rest. ``rate`` scales both rates (0..1)."""
    value, gradient = jax.value_and_grad(loss)(parameters, shape, batch)
    new, kept = {}, {}
    for name, weight in parameters.items():
        g = gradient[name]
        if name in MATRICES:
            momentum = 0.95 * moments[name + ".1"] + g
            update = orthogonal(g + 0.95 * momentum) * max(1.0, weight.shape[-1] / weight.shape[-2]) ** 0.5
            new[name] = weight * (1 - rate * 0.02 * 0.02) - rate * 0.02 * update
            kept[name + ".1"] = momentum
        else:
            first = 0.9 * moments[name + ".1"] + 0.1 * g
            second = 0.98 * moments[name + ".2"] + 0.02 * g * g
            update = first / (1 - 0.9**count) / (jnp.sqrt(second / (1 - 0.98**count)) + 1e-8)
            new[name] = weight - rate * 4e-3 * update
            kept[name + ".1"], kept[name + ".2"] = first, second
    return new, kept, value


def fresh_moments(parameters: Parameters) -> Moments:
    """Zeros: one moment for Muon's matrices, two for Adam's."""
    out = {name + ".1": jnp.zeros_like(value) for name, value in parameters.items()}
    return out | {name + ".2": jnp.zeros_like(value) for name, value in parameters.items() if name not in MATRICES}


def rate_at(at: int, done: float, falling: float) -> float:
    """The rate as a share of its peak: warm-up over 100 steps, flat, then down to zero.

    ``at`` is the step, ``done`` the share of the run that is over, ``falling`` the share in which the rate falls.
    """
    return min(1.0, (at + 1) / 100, max(0.0, (1 - done) / falling))


def vocabulary_of(out: Path, seed: int) -> Vocabulary:
    """The vocabulary in ``out``, learned first if it is not there."""
    path = out / "vocabulary.json"
    if not path.exists():
        rng = Random(seed)
        learn((prompt(conversation(rng)) for _ in range(30_000)), merges=760, spaced=260).save(path)
    return Vocabulary.load(path)


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(pickle.dumps(jax.tree.map(lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, state)))
    temporary.replace(path)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of vocabulary, checkpoint and log")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, help="end after this time instead, and let the rate fall by the clock")
    parser.add_argument("--batch", type=int, default=16, help="rows in a step")
    parser.add_argument("--length", type=int, default=288, help="tokens in a row")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--from-gguf", type=Path, help="begin from an exported file instead of fresh parameters")
    parser.add_argument("--peak", type=float, default=1.0, help="highest learning rate, as a share of the full one")
    parser.add_argument("--falling", type=float, default=0.4, help="share of the steps in which the rate falls to zero")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.pickle"
    if options.from_gguf:
        shape, read_back, vocabulary = restore.read(options.from_gguf)
        vocabulary.save(options.out / "vocabulary.json")
        parameters = {name: jnp.asarray(value) for name, value in read_back.items()}
    else:
        vocabulary = vocabulary_of(options.out, options.seed)
        inner = options.width * 11 // 4 // 32 * 32
        shape = Shape(len(vocabulary), options.width, options.layers, options.width // 32, inner)
        parameters = initial(shape, options.seed)
    moments, at, data_seed = fresh_moments(parameters), 0, options.seed
    if options.resume:
        state = pickle.loads(checkpoint.read_bytes())
        shape, at = Shape(**state["shape"]), state["step"]
        parameters, moments = (jax.tree.map(jnp.asarray, state[name]) for name in ("parameters", "moments"))
        data_seed = options.seed + at  # never the same conversations again
    print(
        json.dumps({"parameters": sum(p.size for p in parameters.values()), "vocabulary": len(vocabulary)}), flush=True
    )
    rows = packed(vocabulary, data_seed, options.length)
    began, seen, losses = time.monotonic(), 0, []

    def done() -> float:
        return (time.monotonic() - began) / 60 / options.minutes if options.minutes else at / options.steps

    ended = done() >= 1
    while not ended:
        chosen = [next(rows) for _ in range(options.batch)]
        batch = {name: np.stack([row[name] for row in chosen]) for name in chosen[0]}
        rate = options.peak * rate_at(at, done(), options.falling)
        parameters, moments, value = step(shape, parameters, moments, batch, np.float32(rate), np.float32(at + 1))
        losses.append(value)
        seen += int((batch["documents"] > 0).sum())
        at += 1
        ended = done() >= 1
        if at % 25 == 0 or ended:
            mean, losses = float(np.mean([float(x) for x in losses])), []
            spent = time.monotonic() - began
            line = {
                "step": at,
                "loss": round(mean, 4),
                "tokens/s": round(seen / spent),
                "minutes": round(spent / 60, 1),
            }
            print(json.dumps(line), flush=True)
        if at % 200 == 0 or ended:
            fields = {name: getattr(shape, name) for name in Shape.__dataclass_fields__}
            save(checkpoint, {"shape": fields, "step": at, "parameters": parameters, "moments": moments})


if __name__ == "__main__":
    main()
