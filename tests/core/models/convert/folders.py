"""Folders of safetensors as model hubs have them, with random weights and tokenizers of a few hundred tokens."""

import json
import struct
from pathlib import Path

import numpy as np
from tests.core.models.convert import tokenizers

HIDDEN, HEADS, KV_HEADS, HEAD, WIDE, LAYERS, EXPERTS = 64, 4, 2, 16, 96, 2, 3
KINDS = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8}


class Folder:
    """What stands in a folder: change it, then write it."""

    def __init__(self, config, files, seed=7):
        self.config = config
        self.files = files
        self.tensors = {}
        self.random = np.random.default_rng(seed)

    def add(self, name, *shape, scale=0.3, middle=0.0):
        """Add weights that bfloat16 can say, so that no kind of file changes them."""
        values = (self.random.normal(0, scale, shape) + middle).astype(np.float32)
        self.tensors[name] = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)

    def write(self, path, *, kind="BF16", shards=1):
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(self.config))
        for name, content in self.files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (path / name).write_bytes(data)
        if shards == 1:
            write_safetensors(path / "model.safetensors", self.tensors, kind)
            return path
        names = list(self.tensors)
        index = {}
        for shard in range(shards):
            file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
            write_safetensors(path / file, {name: self.tensors[name] for name in names[shard::shards]}, kind)
            index |= dict.fromkeys(names[shard::shards], file)
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        return path


def write_safetensors(path: Path, tensors, kind="BF16", metadata=None):
    header, data = {"__metadata__": metadata or {"format": "pt"}}, b""
    for name, values in tensors.items():
        as_kind = kind if values.dtype == np.float32 else "I64"
        if as_kind == "BF16":
            content = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            content = values.astype(KINDS[as_kind]).tobytes()
        header[name] = {
            "dtype": as_kind,
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def _decoder(config, files, *, tied, layers=LAYERS, head=HEAD, norm=1.0, prefix="model."):
    """Fill a folder with what all decoders have."""
    folder = Folder(config, files)
    config |= {
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    }
    vocabulary = config["vocab_size"]
    folder.add(f"{prefix}embed_tokens.weight", vocabulary, HIDDEN)
    for layer in range(layers):
        block = f"{prefix}layers.{layer}."
        folder.add(f"{block}self_attn.q_proj.weight", HEADS * head, HIDDEN)
        folder.add(f"{block}self_attn.k_proj.weight", KV_HEADS * head, HIDDEN)
        folder.add(f"{block}self_attn.v_proj.weight", KV_HEADS * head, HIDDEN)
        folder.add(f"{block}self_attn.o_proj.weight", HIDDEN, HEADS * head)
        folder.add(f"{block}mlp.gate_proj.weight", WIDE, HIDDEN)
        folder.add(f"{block}mlp.up_proj.weight", WIDE, HIDDEN)
        folder.add(f"{block}mlp.down_proj.weight", HIDDEN, WIDE)
        folder.add(f"{block}input_layernorm.weight", HIDDEN, middle=norm)
        folder.add(f"{block}post_attention_layernorm.weight", HIDDEN, middle=norm)
    folder.add(f"{prefix}norm.weight", HIDDEN, middle=norm)
    if not tied:
        folder.add("lm_head.weight", vocabulary, HIDDEN)
    return folder


def llama(**changes):
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": tokenizers.BPE_SIZE}
    config |= {"bos_token_id": tokenizers.BEGIN, "eos_token_id": tokenizers.END, "rope_theta": 500000.0}
    files = tokenizers.bpe("llama3") | {"generation_config.json": {"eos_token_id": [tokenizers.END, tokenizers.IM_END]}}
    folder = _decoder(config, files, tied=False)
    config |= changes
    return folder


def llama_with_scaled_rope():
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return llama(rope_scaling=scaling | {"original_max_position_embeddings": 64})


def mistral():
    config = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "vocab_size": tokenizers.PIECES_SIZE}
    config |= {"bos_token_id": 2, "eos_token_id": 1, "rope_theta": 10000.0, "sliding_window": None}
    return _decoder(config, tokenizers.pieces(), tied=False)


def qwen2():
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": tokenizers.BPE_SIZE + 8}
    config |= {"eos_token_id": tokenizers.IM_END, "rope_theta": 1000000.0, "use_sliding_window": False}
    folder = _decoder(config, tokenizers.bpe("qwen2"), tied=True)
    for layer in range(LAYERS):
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            folder.add(f"model.layers.{layer}.self_attn.{name}_proj.bias", heads * HEAD)
    return folder


def qwen3():
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": tokenizers.BPE_SIZE}
    config |= {"eos_token_id": tokenizers.IM_END, "rope_theta": 1000000.0, "head_dim": 32}
    folder = _decoder(config, tokenizers.bpe("qwen2"), tied=False, head=32)
    for layer in range(LAYERS):
        folder.add(f"model.layers.{layer}.self_attn.q_norm.weight", 32, middle=1.0)
        folder.add(f"model.layers.{layer}.self_attn.k_norm.weight", 32, middle=1.0)
    return folder


def _experts(folder, part, gate, up, down, wide):
    """Put experts in the place of the feed-forward part."""
    for layer in range(LAYERS):
        for name in ("gate", "up", "down"):
            del folder.tensors[f"model.layers.{layer}.mlp.{name}_proj.weight"]
        block = f"model.layers.{layer}.{part}."
        folder.add(f"{block}gate.weight", EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            folder.add(f"{block}experts.{expert}.{gate}.weight", wide, HIDDEN)
            folder.add(f"{block}experts.{expert}.{up}.weight", wide, HIDDEN)
            folder.add(f"{block}experts.{expert}.{down}.weight", HIDDEN, wide)
    return folder


def mixtral():
    changes = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
    folder = llama(**changes, num_local_experts=EXPERTS, num_experts_per_tok=2)
    return _experts(folder, "block_sparse_moe", "w1", "w3", "w2", WIDE)


def qwen3moe():
    folder = qwen3()
    folder.config |= {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "norm_topk_prob": True}
    folder.config |= {"num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    return _experts(folder, "mlp", "gate_proj", "up_proj", "down_proj", 32)


def gemma():
    config = {"architectures": ["GemmaForCausalLM"], "model_type": "gemma", "vocab_size": tokenizers.PIECES_SIZE}
    config |= {"bos_token_id": 2, "eos_token_id": 1, "head_dim": 32, "hidden_act": "gelu_pytorch_tanh"}
    return _decoder(config, tokenizers.pieces(model=True), tied=True, head=32, norm=0.0)


def gemma2():
    config = {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "vocab_size": tokenizers.PIECES_SIZE}
    config |= {"bos_token_id": 2, "eos_token_id": 1, "head_dim": 32, "hidden_activation": "gelu_pytorch_tanh"}
    config |= {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "sliding_window": 6}
    config |= {"query_pre_attn_scalar": 32}
    folder = _decoder(config, tokenizers.pieces(model=True), tied=True, head=32, norm=0.0)
    _norms_around_ffn(folder, LAYERS)
    return folder


def gemma3(layers=6):
    config = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": tokenizers.PIECES_SIZE}
    config |= {"bos_token_id": 2, "eos_token_id": [1, 5], "head_dim": 32, "hidden_activation": "gelu_pytorch_tanh"}
    config |= {"sliding_window": 6, "sliding_window_pattern": 6, "query_pre_attn_scalar": 32}
    config |= {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0}
    folder = _decoder(config, tokenizers.pieces(model=True), tied=True, layers=layers, head=32, norm=0.0)
    _norms_around_ffn(folder, layers)
    for layer in range(layers):
        folder.add(f"model.layers.{layer}.self_attn.q_norm.weight", 32)
        folder.add(f"model.layers.{layer}.self_attn.k_norm.weight", 32)
    return folder


def _norms_around_ffn(folder, layers):
    for layer in range(layers):
        folder.add(f"model.layers.{layer}.pre_feedforward_layernorm.weight", HIDDEN)
        folder.add(f"model.layers.{layer}.post_feedforward_layernorm.weight", HIDDEN)


def bert(pooling="mean"):
    config = {"architectures": ["BertModel"], "model_type": "bert", "vocab_size": tokenizers.WORDS_SIZE}
    config |= {"hidden_size": HIDDEN, "intermediate_size": WIDE, "num_hidden_layers": LAYERS, "hidden_act": "gelu"}
    config |= {"num_attention_heads": HEADS, "max_position_embeddings": 64, "type_vocab_size": 2}
    config |= {"layer_norm_eps": 1e-12, "torch_dtype": "float32"}
    folder = Folder(config, tokenizers.words())
    folder.add("embeddings.word_embeddings.weight", tokenizers.WORDS_SIZE, HIDDEN)
    folder.add("embeddings.position_embeddings.weight", 64, HIDDEN)
    folder.add("embeddings.token_type_embeddings.weight", 2, HIDDEN)
    folder.tensors["embeddings.position_ids"] = np.arange(64).reshape(1, 64)
    _layer_norm(folder, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        block = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            _linear(folder, block + name, HIDDEN, HIDDEN)
        _layer_norm(folder, f"{block}attention.output.LayerNorm")
        _linear(folder, f"{block}intermediate.dense", WIDE, HIDDEN)
        _linear(folder, f"{block}output.dense", HIDDEN, WIDE)
        _layer_norm(folder, f"{block}output.LayerNorm")
    _linear(folder, "pooler.dense", HIDDEN, HIDDEN)
    folder.pooling = pooling
    return folder


def write_sentences(folder, path, **how):
    """Write a folder of sentence-transformers, whose modules stand in folders of their own."""
    folder.write(path, **how)
    modules = [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    modules.append({"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir(exist_ok=True)
    modes = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
    modes["lasttoken"] = "pooling_mode_lasttoken"
    pooling = {"word_embedding_dimension": HIDDEN} | {mode: name == folder.pooling for name, mode in modes.items()}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return path


def _linear(folder, name, out, into):
    folder.add(f"{name}.weight", out, into)
    folder.add(f"{name}.bias", out)


def _layer_norm(folder, name):
    folder.add(f"{name}.weight", HIDDEN, middle=1.0)
    folder.add(f"{name}.bias", HIDDEN)


DECODERS = {
    "llama": llama,
    "llama_with_scaled_rope": llama_with_scaled_rope,
    "mistral": mistral,
    "mixtral": mixtral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3moe": qwen3moe,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3,
}
