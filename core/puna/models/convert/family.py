"""The protocol of a model family: the keys that it writes, and the names, shapes and changes of its tensors."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from puna.models.convert import pooling
from puna.models.convert.folder import Folder
from puna.models.convert.safetensors import Array
from puna.models.convert.settings import ModelSettings

Value: TypeAlias = "bool | int | float | str | list[bool] | list[int] | list[float] | list[str]"
Pairs: TypeAlias = dict[str, Value]
"""Metadata by key. The GGUF types follow the Python types: int is uint32, or int32 in lists; float is float32."""
Shape: TypeAlias = tuple[int | None, ...]
"""Lengths, outermost first. None matches any length."""


class Family(Protocol):
    """One model of a family."""

    architecture: ClassVar[str]
    """The name of the architecture in GGUF."""
    blocks: int

    def metadata(self) -> Pairs:
        """Return the architecture's keys without its name, which is put before them."""
        ...

    def source(self, name: str) -> str | None:
        """Return the tensor's name in gguf's map; None to skip the tensor."""
        ...

    def edited(self, target: str, values: Array) -> Array:
        """Return the values of the tensor `target`, reordered or shifted. BF16 values are integers of their bits and
        may only be reordered. Stacked experts are not passed here."""
        ...

    def shapes(self) -> Mapping[str, Shape]:
        """Return the shapes of the required tensors."""
        ...

    def added(self) -> Mapping[str, Array]:
        """Return float32 tensors that no file contains."""
        ...


class Decoder:
    """The common part of all decoders, with the keys of Llama's config.json."""

    architecture: ClassVar[str]
    default_heads: ClassVar[int | None] = None
    default_kv_heads: ClassVar[int | None] = None
    default_head: ClassVar[int | None] = None
    default_theta: ClassVar[float] = 10000.0
    default_epsilon: ClassVar[float] = 1e-6
    is_always_tied: ClassVar[bool] = False
    """True if the output layer always shares the weights of the embeddings. config.json is then ignored."""

    def __init__(self, settings: ModelSettings, folder: Folder) -> None:
        self.settings = settings
        self.folder = folder
        self.blocks = settings.integer("num_hidden_layers")
        self.hidden = settings.integer("hidden_size")
        self.wide = settings.integer("intermediate_size")
        self.heads = settings.integer("num_attention_heads", self.default_heads)
        # A model from before grouped-query attention has no such key: each query head has its own keys and values.
        self.kv_heads = settings.integer("num_key_value_heads", self.default_kv_heads or self.heads)
        self.head = settings.integer("head_dim", self.default_head or self.hidden // max(self.heads, 1))

    def metadata(self) -> Pairs:
        """Return the keys of every decoder, and the pooling type of a model that makes embeddings."""
        how = pooling.pooling(self.folder)
        found: Pairs = {} if how is None else {"pooling_type": how}
        return found | {
            "block_count": self.blocks,
            "context_length": self.settings.integer("max_position_embeddings", 2048),
            "embedding_length": self.hidden,
            "feed_forward_length": self.wide,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.layer_norm_rms_epsilon": self.settings.number("rms_norm_eps", self.default_epsilon),
        }

    def source(self, name: str) -> str | None:
        """Skip tensors that llama.cpp computes itself."""
        return None if name.endswith((".rotary_emb.inv_freq", ".attention.masked_bias")) else name

    def edited(self, target: str, values: Array) -> Array:  # noqa: ARG002  # what families override
        """Return the values unchanged."""
        return values

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of attention, feed-forward and norms."""
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        # None accepts any number of rows: a config.json may leave vocab_size to the class that reads it.
        rows = self.settings.integer("vocab_size") if "vocab_size" in self.settings else None
        found: dict[str, Shape] = {"token_embd.weight": (rows, self.hidden), "output_norm.weight": (self.hidden,)}
        # Only a config.json that rules out tying requires an output tensor. Without one llama.cpp uses the embeddings.
        if self.settings.values.get("tie_word_embeddings") is False and not self.is_always_tied:
            found["output.weight"] = (rows, self.hidden)
        for block in range(self.blocks):
            found |= {
                f"blk.{block}.attn_norm.weight": (self.hidden,),
                f"blk.{block}.attn_q.weight": (queries, self.hidden),
                f"blk.{block}.attn_k.weight": (keys, self.hidden),
                f"blk.{block}.attn_v.weight": (keys, self.hidden),
                f"blk.{block}.attn_output.weight": (self.hidden, queries),
                f"blk.{block}.ffn_norm.weight": (self.hidden,),
            } | {f"blk.{block}.{name}": shape for name, shape in self.feed_forward().items()}
        return found

    def feed_forward(self) -> dict[str, Shape]:
        """Return the shapes of one block's feed-forward part."""
        return {
            "ffn_gate.weight": (self.wide, self.hidden),
            "ffn_up.weight": (self.wide, self.hidden),
            "ffn_down.weight": (self.hidden, self.wide),
        }

    def experts(self, count: int, wide: int) -> dict[str, Shape]:
        """Return the shapes of one block's experts and of their router."""
        return {
            "ffn_gate_inp.weight": (count, self.hidden),
            "ffn_gate_exps.weight": (count, wide, self.hidden),
            "ffn_up_exps.weight": (count, wide, self.hidden),
            "ffn_down_exps.weight": (count, self.hidden, wide),
        }

    def added(self) -> dict[str, Array]:
        """Return no tensors."""
        return {}

    def head_sizes(self) -> Pairs:
        """Return the keys for the size of an attention head. Families add them where the size may differ from
        embedding_length / head_count, which llama.cpp assumes without them."""
        return {"attention.key_length": self.head, "attention.value_length": self.head}


def by_halves(values: Array, heads: int) -> Array:
    """Reorder the rows of queries or keys for rotary positions. Hugging Face stores the two rows of a pair half a
    head apart; llama.cpp wants them adjacent."""
    rows = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(values.shape)
