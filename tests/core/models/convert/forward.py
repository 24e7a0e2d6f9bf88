"""What a model says, worked out with numpy from its own folder: the papers' formulas, none of llama.cpp's layouts."""

import math

import numpy as np


def logits(folder, tokens):
    """Return the logits behind each token."""
    return _Decoder(folder).run(tokens)


class _Decoder:
    def __init__(self, folder):
        self.config = folder.config
        self.weights = folder.tensors
        self.is_gemma = folder.config["model_type"].startswith("gemma")

    def run(self, tokens):
        config = self.config
        embeddings = self.weights["model.embed_tokens.weight"]
        x = embeddings[tokens] * (math.sqrt(config["hidden_size"]) if self.is_gemma else 1)
        for layer in range(config["num_hidden_layers"]):
            x = self.block(x, layer, f"model.layers.{layer}.")
        x = self.norm(x, "model.norm")
        head = self.weights.get("lm_head.weight", embeddings)
        return _capped(x @ head.T, config.get("final_logit_softcapping"))

    def block(self, x, layer, name):
        y = self.attention(self.norm(x, f"{name}input_layernorm"), layer, f"{name}self_attn.")
        if f"{name}pre_feedforward_layernorm.weight" not in self.weights:
            x = x + y
            return x + self.feed_forward(self.norm(x, f"{name}post_attention_layernorm"), name)
        x = x + self.norm(y, f"{name}post_attention_layernorm")
        y = self.feed_forward(self.norm(x, f"{name}pre_feedforward_layernorm"), name)
        return x + self.norm(y, f"{name}post_feedforward_layernorm")

    def attention(self, x, layer, name):
        config, length = self.config, len(x)
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        size = config.get("head_dim", config["hidden_size"] // heads)
        q = self.linear(x, f"{name}q_proj").reshape(length, heads, size)
        k = self.linear(x, f"{name}k_proj").reshape(length, kv_heads, size)
        v = self.linear(x, f"{name}v_proj").reshape(length, kv_heads, size)
        if f"{name}q_norm.weight" in self.weights:
            q, k = self.norm(q, f"{name}q_norm"), self.norm(k, f"{name}k_norm")
        window = self.window(layer)
        theta = config.get("rope_local_base_freq") if window else None
        angles = np.arange(length)[:, None] * self.frequencies(size, theta or config.get("rope_theta", 10000.0))
        q, k = _turned(q, angles), _turned(k, angles)
        k, v = (np.repeat(each, heads // kv_heads, axis=1) for each in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(config.get("query_pre_attn_scalar", size))
        scores = _capped(scores, config.get("attn_logit_softcapping"))
        distance = np.arange(length)[:, None] - np.arange(length)[None, :]
        scores = np.where((distance < 0) | (distance >= (window or length)), -np.inf, scores)
        y = np.einsum("hqk,khd->qhd", _softmax(scores), v).reshape(length, heads * size)
        return self.linear(y, f"{name}o_proj")

    def window(self, layer):
        if not self.is_gemma or "sliding_window" not in self.config:
            return None
        pattern = self.config.get("sliding_window_pattern", 2)
        return self.config["sliding_window"] if (layer + 1) % pattern else None

    def frequencies(self, size, theta):
        found = theta ** -(np.arange(0, size, 2) / size)
        scaling = self.config.get("rope_scaling")
        if scaling is None:
            return found
        out = []
        for frequency in found:
            wave = 2 * math.pi / frequency
            turns = scaling["original_max_position_embeddings"] / wave
            low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
            part = (turns - low) / (high - low)
            if turns > high:
                out.append(frequency)
            elif turns < low:
                out.append(frequency / scaling["factor"])
            else:
                out.append((1 - part) * frequency / scaling["factor"] + part * frequency)
        return np.array(out)

    def feed_forward(self, x, name):
        if f"{name}mlp.gate_proj.weight" in self.weights:
            return self.gated(x, *(f"{name}mlp.{each}_proj" for each in ("gate", "up", "down")))
        part, names = (
            ("block_sparse_moe", "w1 w3 w2")
            if f"{name}block_sparse_moe.gate.weight" in self.weights
            else ("mlp", "gate_proj up_proj down_proj")
        )
        chances = _softmax(self.linear(x, f"{name}{part}.gate"))
        y = np.zeros_like(x)
        for row, chance in enumerate(chances):
            chosen = np.argsort(chance)[::-1][: self.config["num_experts_per_tok"]]
            for expert in chosen:
                where = [f"{name}{part}.experts.{expert}.{each}" for each in names.split()]
                y[row] += chance[expert] / chance[chosen].sum() * self.gated(x[row : row + 1], *where)[0]
        return y

    def gated(self, x, gate, up, down):
        opened = self.linear(x, gate)
        if self.is_gemma:
            opened = 0.5 * opened * (1 + np.tanh(math.sqrt(2 / math.pi) * (opened + 0.044715 * opened**3)))
        else:
            opened = opened / (1 + np.exp(-opened))
        return self.linear(opened * self.linear(x, up), down)

    def linear(self, x, name):
        bias = self.weights.get(f"{name}.bias", 0)
        return x @ self.weights[f"{name}.weight"].T + bias

    def norm(self, x, name):
        scaled = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + self.config["rms_norm_eps"])
        return scaled * (self.weights[f"{name}.weight"] + self.is_gemma)


def embedding(folder, tokens):
    """Return BERT's vector of a text: the mean of its tokens', or the first one's, at length one."""
    config, weights = folder.config, folder.tensors
    heads, length = config["num_attention_heads"], len(tokens)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["embeddings.word_embeddings.weight"][tokens] + weights["embeddings.position_embeddings.weight"][:length]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        block = f"encoder.layer.{layer}."
        q, k, v = (
            linear(x, f"{block}attention.self.{name}").reshape(length, heads, -1) for name in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
        y = np.einsum("hqk,khd->qhd", _softmax(scores), v).reshape(length, -1)
        x = norm(x + linear(y, f"{block}attention.output.dense"), f"{block}attention.output.LayerNorm")
        y = linear(x, f"{block}intermediate.dense")
        y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        x = norm(x + linear(y, f"{block}output.dense"), f"{block}output.LayerNorm")
    vector = x.mean(axis=0) if folder.pooling == "mean" else x[0]
    return vector / np.linalg.norm(vector)


def _turned(x, angles):
    """Turn pairs that stand half a head apart."""
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def _softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def _capped(x, cap):
    return x if cap is None else cap * np.tanh(x / cap)
