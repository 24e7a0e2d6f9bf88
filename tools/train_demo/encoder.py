"""The BERT of llamita-embed in JAX, as llama.cpp runs it: normalized after each sum, GELU, the mean of all tokens."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

Parameters = dict[str, jax.Array]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int
    width: int = 128
    layers: int = 2
    heads: int = 4
    inner: int = 384
    context: int = 512
    epsilon: float = 1e-12


MATRICES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "up": "ffn_up", "down": "ffn_down"}
NORMS = {"norm": "token_embd_norm", "attention_norm": "attn_output_norm", "ffn_norm": "layer_output_norm"}


def initial(shape: Shape, seed: int) -> Parameters:
    """Fresh parameters. Matrices are [layers, in, out]. Positions begin as zeros: unseen ones change nothing."""
    rng = np.random.default_rng(seed)
    n, d, f = shape.layers, shape.width, shape.inner
    sizes = {"q": (d, d), "k": (d, d), "v": (d, d), "o": (d, d), "up": (d, f), "down": (f, d)}
    out: dict[str, np.ndarray] = {
        "embed": rng.normal(0, 1, (shape.vocabulary, d)),
        "positions": np.zeros((shape.context, d)),
        "norm": np.ones(d),
        "norm.bias": np.zeros(d),
    }
    for name, (rows, columns) in sizes.items():
        scale = rows**-0.5 * (0.3 if name in {"o", "down"} else 1.0)
        out[name] = rng.normal(0, scale, (n, rows, columns))
        out[name + ".bias"] = np.zeros((n, columns))
    for name in ("attention_norm", "ffn_norm"):
        out[name], out[name + ".bias"] = np.ones((n, d)), np.zeros((n, d))
    return {name: jnp.asarray(value, jnp.float32) for name, value in out.items()}


def embed(parameters: Parameters, shape: Shape, tokens: jax.Array) -> jax.Array:
    """Unit vectors [batch, width] of token ids [batch, time]; 0 is padding."""
    real = tokens != 0
    time = tokens.shape[1]
    x = _norm(parameters["embed"][tokens] + parameters["positions"][:time], parameters, "norm", None, shape.epsilon)
    bias = jnp.where(real, 0.0, -1e9)[:, None, None, :]
    for i in range(shape.layers):
        q, k, v = (
            _linear(x, parameters, name, i).reshape(*tokens.shape, shape.heads, shape.width // shape.heads)
            for name in "qkv"
        )
        score = jnp.einsum("bihd,bjhd->bhij", q, k) * (shape.width // shape.heads) ** -0.5 + bias
        seen = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(score), v).reshape(x.shape)
        x = _norm(x + _linear(seen, parameters, "o", i), parameters, "attention_norm", i, shape.epsilon)
        inner = jax.nn.gelu(_linear(x, parameters, "up", i), approximate=True)
        x = _norm(x + _linear(inner, parameters, "down", i), parameters, "ffn_norm", i, shape.epsilon)
    weight = real[..., None].astype(jnp.float32)
    mean = jnp.sum(x * weight, 1) / jnp.sum(weight, 1)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


def _linear(x: jax.Array, parameters: Parameters, name: str, layer: int) -> jax.Array:
    return x @ parameters[name][layer] + parameters[name + ".bias"][layer]


def _norm(x: jax.Array, parameters: Parameters, name: str, layer: int | None, epsilon: float) -> jax.Array:
    weight, bias = parameters[name], parameters[name + ".bias"]
    if layer is not None:
        weight, bias = weight[layer], bias[layer]
    centred = x - jnp.mean(x, -1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + epsilon) * weight + bias


def loss(parameters: Parameters, shape: Shape, batch: dict[str, jax.Array]) -> jax.Array:
    """Contrastive loss both ways (InfoNCE, van den Oord 2018): each text finds its partner among all of the batch.

    ``one`` and ``other`` are token ids [batch, time]; ``same`` [batch, batch] marks pairs of one meaning off the
    diagonal, which count neither way.
    """
    a, b = embed(parameters, shape, batch["one"]), embed(parameters, shape, batch["other"])
    score = a @ b.T * 20.0 - 1e9 * batch["same"]
    right = jnp.diagonal(score)
    return jnp.mean(jax.nn.logsumexp(score, 1) + jax.nn.logsumexp(score, 0) - 2 * right) / 2
