"""The llama network in JAX: RMSNorm, rotary positions on neighbouring pairs (llama.cpp's order), SwiGLU."""

import jax
import jax.numpy as jnp
import numpy as np

from train_demo.shape import Shape

Parameters = dict[str, jax.Array]


MATRICES = ("q", "k", "v", "o", "gate", "up", "down")  # per layer, stacked; stepped by Muon


def initial(shape: Shape, seed: int) -> Parameters:
    """Fresh parameters. Matrices are [layers, in, out]; what writes into the residual stream starts at zero."""
    rng = np.random.default_rng(seed)

    def normal(*size: int, scale: float) -> jax.Array:
        return jnp.asarray(rng.normal(0, scale, size), jnp.float32)

    n, d, f = shape.layers, shape.width, shape.inner
    return {
        "embed": normal(shape.vocabulary, d, scale=0.5),
        "head": normal(d, shape.vocabulary, scale=0.01),
        "norm": jnp.ones(d),
        "attention_norm": jnp.ones((n, d)),
        "ffn_norm": jnp.ones((n, d)),
        "q": normal(n, d, d, scale=d**-0.5),
        "k": normal(n, d, d, scale=d**-0.5),
        "v": normal(n, d, d, scale=d**-0.5),
        "o": jnp.zeros((n, d, d)),
        "gate": normal(n, d, f, scale=d**-0.5),
        "up": normal(n, d, f, scale=d**-0.5),
        "down": jnp.zeros((n, f, d)),
    }


def logits(
    parameters: Parameters, shape: Shape, tokens: jax.Array, positions: jax.Array, documents: jax.Array
) -> jax.Array:
    """Scores [batch, time, vocabulary]; a token sees earlier tokens of its own document only.

    ``tokens``, ``positions`` and ``documents`` are integers [batch, time].
    """
    x = parameters["embed"][tokens]
    time = tokens.shape[1]
    mask = jnp.tril(jnp.ones((time, time), bool)) & (documents[:, :, None] == documents[:, None, :])
    bias = jnp.where(mask, 0.0, -1e9)[:, None]
    frequency = shape.rope_base ** (-jnp.arange(0, shape.head, 2) / shape.head)
    angle = positions[:, :, None, None] * frequency
    rotation = (jnp.cos(angle), jnp.sin(angle))

    def layer(x: jax.Array, w: Parameters) -> tuple[jax.Array, None]:
        h = _norm(x, w["attention_norm"], shape.epsilon)
        q, k, v = ((h @ w[name]).reshape(*h.shape[:2], shape.heads, shape.head) for name in "qkv")
        q, k = _rotate(q, rotation), _rotate(k, rotation)
        score = jnp.einsum("bihd,bjhd->bhij", q, k) * shape.head**-0.5 + bias
        seen = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(score), v)
        x = x + seen.reshape(*h.shape) @ w["o"]
        h = _norm(x, w["ffn_norm"], shape.epsilon)
        return x + (jax.nn.silu(h @ w["gate"]) * (h @ w["up"])) @ w["down"], None

    for i in range(shape.layers):  # unrolled: XLA's loop costs more on a CPU
        x, _ = layer(x, {name: parameters[name][i] for name in (*MATRICES, "attention_norm", "ffn_norm")})
    return _norm(x, parameters["norm"], shape.epsilon) @ parameters["head"]


def _norm(x: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon) * weight


def _rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    cos, sin = rotation
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack((even * cos - odd * sin, even * sin + odd * cos), -1).reshape(x.shape)


def loss(parameters: Parameters, shape: Shape, batch: dict[str, jax.Array]) -> jax.Array:
    """Mean cross entropy (nats) over the tokens that are to be learned."""
    score = logits(parameters, shape, batch["tokens"], batch["positions"], batch["documents"])
    weight = batch["weights"]
    picked = jnp.take_along_axis(score, batch["targets"][..., None], -1)[..., 0]
    return jnp.sum((jax.nn.logsumexp(score, -1) - picked) * weight) / jnp.maximum(jnp.sum(weight), 1.0)
