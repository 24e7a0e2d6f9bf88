"""The metadata of tiny models, by architecture. llama.cpp takes the keys that it needs and ignores the others.

So all models get the same keys, with the same small numbers. What follows from an architecture stands in the tables
below: the shapes and keys of those that llama.cpp would refuse otherwise, or of which it would run too little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import gguf

Value = bool | int | float | str | Sequence[bool] | Sequence[int] | Sequence[float]
"""A value of the metadata: an integer is unsigned, of 32 bits."""
WINDOW = 64
"""Tokens of a sliding window, where an architecture has one."""
EXPERTS = 4
_LATENT = 128
"""Width of compressed keys and values (MLA), without their 64 positions."""


@dataclass(frozen=True)
class Shape:
    """How large a model is, and which keys it has besides those of all models."""

    layers: int = 2
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 2
    forward: int = 384
    vocabulary: int = 512
    more: Mapping[str, Value] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    """Parts of the names of optional tensors that published models do not have."""
    vectors: tuple[str, ...] = ()
    """Parts of the names of tensors that files hold as vectors, although llama.cpp asks for matrices."""


class Long(list[int]):
    """Integers of 64 bits."""


def _without_attention(shape: Shape, layers: Sequence[int]) -> dict[str, Value]:
    """Return the heads of each layer of a model whose `layers` have no attention."""
    return {
        "attention.head_count": [0 if layer in layers else shape.heads for layer in range(shape.layers)],
        "attention.head_count_kv": [0 if layer in layers else shape.kv_heads for layer in range(shape.layers)],
    }


_PLAIN = Shape()
_EQUAL_HEADS = Shape(kv_heads=4)
"""With as many heads for keys as for queries."""
_HYBRID = Shape(more=_without_attention(_PLAIN, [1]))
_LATENT_KEYS: dict[str, Value] = {
    "attention.key_length": _LATENT + 64,
    "attention.value_length": _LATENT,
    "attention.key_length_mla": 128,
    "attention.value_length_mla": 64,
    "rope.dimension_count": 64,
}
_INDEXER: dict[str, Value] = {
    "attention.indexer.head_count": 8,
    "attention.indexer.key_length": 128,
    # All tokens: a choice among them would change with the last bit of a sum.
    "attention.indexer.top_k": 131072,
    "attention.indexer.block_size": 4,
    "attention.indexer.local_blocks": 1,
    "attention.indexer.kpool": 4,
    "attention.indexer.kpool_select_tail": True,
}
_HYPER: dict[str, Value] = {
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 1e-6,
    "hyper_connection.magnitude": 2.0,
    "hyper_connection.low_rank": 8,
}
_SCALED_EXPERTS: dict[str, Value] = {
    "expert_weights_scale": 1.0,
    "expert_weights_norm": True,
    "swiglu_clamp_exp": 10.0,
    "swiglu_clamp_shexp": 10.0,
}
_LATENT_SHAPE = Shape(kv_heads=1, more=_LATENT_KEYS)
_INDEXED = Shape(hidden=128, heads=1, kv_heads=1, more=_LATENT_KEYS | _INDEXER)
_LATENT_HYBRID = Shape(
    hidden=128,
    heads=1,
    kv_heads=1,
    more=_LATENT_KEYS
    | _without_attention(Shape(heads=1, kv_heads=1), [1])
    | {
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
        "kda.safe_gate": True,
        "kda.gate_lower_bound": -5.0,
        "attn_res.block_size": 12,
        "activation.situ_beta": 4.0,
        "activation.situ_linear_beta": 25.0,
        "rope.dimension_sections": [8, 12, 12, 0],
    },
)
_ENCODER = Shape(kv_heads=4, more={"attention.causal": False, "pooling_type": 1})
_WINDOWED = Shape(more={"attention.sliding_window_pattern": [0, 1]})
_DELTA = Shape(more={"ssm.inner_size": 256, "ssm.state_size": 64, "ssm.group_count": 2, "ssm.time_step_rank": 4})
_FORWARD_LAST = Shape(layers=3)
_FORWARD_LAST = replace(
    _FORWARD_LAST, more=_without_attention(_FORWARD_LAST, [1, 2]) | {"feed_forward_length": [0, 0, 384]}
)

SHAPES: dict[str, Shape] = {
    "llama4": replace(_PLAIN, layers=4),
    "gemma4": replace(
        _PLAIN,
        layers=6,
        more={
            "attention.sliding_window_pattern": [True, True, True, False, True, False],
            "attention.shared_kv_layers": 2,
            "embedding_length_per_layer_input": 64,
            "attention.key_length": 64,
            "attention.value_length": 64,
            "attention.key_length_swa": 64,
            "attention.value_length_swa": 64,
            "rope.freq_base_swa": 10000.0,
        },
    ),
    # A head for that model, which reads its keys and values. It is wider than the model, so that it can do all that the
    # model's last layer does.
    "gemma4-assistant": replace(
        _PLAIN,
        hidden=512,
        more={
            "embedding_length_out": 256,
            "nextn_predict_layers": 2,
            "attention.sliding_window_pattern": [True, False],
            "attention.key_length": 64,
            "attention.value_length": 64,
            "attention.key_length_swa": 64,
            "attention.value_length_swa": 64,
            "rope.freq_base_swa": 10000.0,
        },
    ),
    # llama.cpp has keys and values in the first twenty layers only.
    "gemma3n": replace(_PLAIN, layers=22, hidden=128, heads=2, kv_heads=1, forward=128),
    "arwkv7": replace(_PLAIN, more={"token_shift_count": 1}),
    "rwkv6qwen2": replace(_PLAIN, more={"token_shift_count": 1}, without=("time_mix_first",)),
    **dict.fromkeys(("dots1", "rwkv6", "olmoe", "minicpm3", "deepseek2-ocr"), _EQUAL_HEADS),
    # It never writes the tokens of images, which have fixed numbers.
    "chameleon": replace(_EQUAL_HEADS, vocabulary=10240),
    **dict.fromkeys(("jamba", "granitehybrid", "lfm2", "lfm2moe"), _HYBRID),
    "plamo2": replace(_EQUAL_HEADS, more=_without_attention(_EQUAL_HEADS, [1]) | {"ssm.group_count": 0}),
    **dict.fromkeys(("nemotron_h", "nemotron_h_moe"), _FORWARD_LAST),
    **dict.fromkeys(("qwen3next", "qwen35", "qwen35moe"), _DELTA),
    **dict.fromkeys(("deepseek2", "mistral4"), _LATENT_SHAPE),
    "plm": replace(
        _EQUAL_HEADS,
        more={"attention.key_length": 96, "attention.value_length": 64, "rope.dimension_count": 32},
    ),
    **dict.fromkeys(("deepseek32", "glm-dsa"), _INDEXED),
    "dots3note": replace(
        _INDEXED,
        more=_INDEXED.more
        | {
            "attention.kv_lora_rank_swa": _LATENT,
            "attention.key_length_swa": _LATENT + 64,
            "attention.value_length_swa": _LATENT,
            "attention.key_length_mla_swa": 128,
            "attention.value_length_mla_swa": 64,
            "rope.freq_base_swa": 10000.0,
            "attention.sliding_window_pattern": [0, 1],
            "attention.indexer.types": [1, 0],
        },
    ),
    "hy_v4": replace(_INDEXED, more=_INDEXED.more | _HYPER | _SCALED_EXPERTS | {"attention.indexer.types": [1, 0]}),
    **dict.fromkeys(("kimi-linear", "kimi-k3", "bailingmoe3"), _LATENT_HYBRID),
    # Its latent keys have no positions, and its heads are the same number in all layers.
    "glm5-next": replace(
        _LATENT_HYBRID,
        more=_LATENT_HYBRID.more
        | _INDEXER
        | _HYPER
        | {"attention.key_length": _LATENT, "rope.dimension_count": 0, "attention.head_count": 1},
    ),
    "deepseek4": Shape(
        layers=4,
        hidden=512,
        heads=8,
        kv_heads=1,
        more=_INDEXER
        | _HYPER
        | _SCALED_EXPERTS
        | {
            "attention.key_length": 64,
            "attention.value_length": 64,
            "rope.dimension_count": 32,
            "attention.q_lora_rank": 64,
            "attention.output_group_count": 8,
            "attention.output_lora_rank": 32,
            "attention.compress_ratios": [0, 0, 4, 128],
            "attention.compress_rope_freq_base": 160000.0,
            "hash_layer_count": 0,
            "expert_gating_func": 4,
        },
    ),
    "minimax-m3": replace(_PLAIN, more=_INDEXER | {"attention.indexer.head_count": 2, "rope.dimension_count": 64}),
    "qwen4exp": replace(
        _DELTA,
        vectors=("ple_norm_", "hc_attn_norm", "hc_ffn_norm", "output_hc_norm"),
        more=_DELTA.more
        | _INDEXER
        | _HYPER
        | {
            "attention.indexer.key_length": 64,
            "attention.compress_ratios": [4, 4],
            "ple.layers": [0],
            "ple.ngram_size": 3,
            "ple.heads_per_ngram": 2,
            "ple.conv_kernel": 4,
            "ple.eos_token_id": 0,
            "embedding_length_per_layer_input": 64,
            "ple.layer_multipliers": Long([1, 3, 5]),
            "ple.head_offsets": Long([0, 512, 1024, 1536]),
            "ple.head_vocab_sizes": Long([512] * 4),
        },
    ),
    # A head for the plain shape, which reads both layers and what the last one makes.
    "eagle3": replace(_PLAIN, layers=1, more={"target_layers": [0, 1, 2], "target_hidden_size": 256}),
    "maple": replace(_WINDOWED, more=_WINDOWED.more | {"swiglu_clamp_exp": 7.0}),
    "hrm_text": replace(_PLAIN, layers=6, more={"hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2}),
    **dict.fromkeys(("cohere2moe", "mimo2", "step35", "spark2_5", "muse-glimmer", "granite_swa"), _WINDOWED),
    **dict.fromkeys(
        (
            "bert",
            "eurobert",
            "gemma-embedding",
            "modern-bert",
            "neo-bert",
            "nomic-bert",
            "nomic-bert-moe",
            "jina-bert-v3",
        ),
        _ENCODER,
    ),
    "jina-bert-v2": replace(_ENCODER, kv_heads=4),
    "llama-embed": replace(_PLAIN, more={"pooling_type": 3}),
    "t5encoder": replace(_EQUAL_HEADS, more={"pooling_type": 1}),
    "t5": _EQUAL_HEADS,
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), replace(_PLAIN, more={"attention.causal": False})),
    # Those that gguf does not know.
    **dict.fromkeys(("hy_v3", "laguna", "mellum", "minimax-01", "nanbeige", "talkie"), _PLAIN),
}
"""The shapes of architectures that differ from the plain one."""


def shape_of(architecture: str) -> Shape:
    """Return the shape of the tiny model of an architecture."""
    return SHAPES.get(architecture, _PLAIN)


def metadata(architecture: str, *, experts: bool, heads: int = 0) -> dict[str, Value]:
    """Return the keys of a model. The architecture's name comes in front of those that do not begin with a slash.

    `heads`: layers behind the last one that draft for the model.
    """
    shape = shape_of(architecture)
    head = shape.hidden // shape.heads
    values: dict[str, Value] = {
        "vocab_size": shape.vocabulary,
        "context_length": 2048,
        "embedding_length": shape.hidden,
        "features_length": shape.hidden,
        "block_count": shape.layers,
        "leading_dense_block_count": 1,
        "feed_forward_length": shape.forward,
        "use_parallel_residual": False,
        "logit_scale": 1.0,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.max_alibi_bias": 8.0,
        "attention.clamp_kqv": 8.0,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.group_norm_epsilon": 1e-5,
        "attention.group_norm_groups": 8,
        "attention.relative_buckets_count": 8,
        "attention.sliding_window": WINDOW,
        "attention.sliding_window_pattern": 2,
        "attention.q_lora_rank": 128,
        "attention.kv_lora_rank": _LATENT,
        "rope.dimension_sections": [head // 4, head // 8, head // 8, 0],
        "full_attention_interval": 2,
        "token_shift_count": 2,
        "time_mix_extra_dim": 32,
        "time_decay_extra_dim": 32,
        "wkv.head_size": head,
        "attention.decay_lora_rank": 32,
        "attention.iclr_lora_rank": 32,
        "attention.value_residual_mix_lora_rank": 32,
        "attention.gate_lora_rank": 32,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 2 * shape.hidden,
        "ssm.state_size": 64,
        "ssm.time_step_rank": shape.heads,
        "ssm.group_count": 2,
        "kda.head_dim": head,
        "shortconv.l_cache": 3,
        "/xielu.alpha_n": 1.0,
        "/xielu.alpha_p": 1.0,
        "/xielu.beta": 1.0,
        "/xielu.eps": 1e-7,
        "residual_scale": 1.0,
        "embedding_scale": 1.0,
        "attention.scale": head**-0.5,
        "decoder_start_token_id": 1,
        "decoder_block_count": shape.layers,
    }
    if experts:
        values |= {
            "expert_feed_forward_length": shape.forward,
            "expert_shared_feed_forward_length": shape.forward // 2,
            "expert_chunk_feed_forward_length": shape.forward,
            "expert_latent_length": shape.forward,
            "interleave_moe_layer_step": 2,
            "moe_every_n_layers": 2,
            "expert_count": EXPERTS,
            "expert_used_count": 2,
            "expert_shared_count": 1,
            "expert_gating_func": 2,
            "expert_group_scale": 1.0,
            "experts_per_group": 1,
        }
    values |= shape.more
    if heads:
        values |= {"block_count": shape.layers + heads, "nextn_predict_layers": heads}
        # A head is a layer like the last one.
        for key, value in values.items():
            if isinstance(value, list) and not isinstance(value, Long) and len(value) == shape.layers:
                values[key] = [*value, *value[-1:] * heads]
    return values


def architectures() -> list[str]:
    """Return the names of all architectures that the package gguf or this module knows."""
    return sorted({*gguf.MODEL_ARCH_NAMES.values(), *SHAPES} - {"clip", "mmproj"})
