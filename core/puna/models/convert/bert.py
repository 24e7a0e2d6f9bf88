"""BERT models. They make embeddings and have no output layer."""

from typing import ClassVar, Final

from puna.models.convert import pooling
from puna.models.convert.family import Pairs, Shape
from puna.models.convert.folder import Folder
from puna.models.convert.safetensors import Array
from puna.models.convert.settings import ModelSettings

_UNUSED: Final = ("embeddings.position_ids", "pooler.", "cls.")


class Bert:
    """BertModel, in the layout of sentence-transformers."""

    architecture: ClassVar[str] = "bert"

    def __init__(self, settings: ModelSettings, folder: Folder) -> None:
        self.settings = settings
        self.folder = folder
        self.blocks = settings.integer("num_hidden_layers")
        self.hidden = settings.integer("hidden_size")
        self.wide = settings.integer("intermediate_size")

    def metadata(self) -> Pairs:
        """Return the keys, with the pooling of tokens to one vector. The default is their mean."""
        return {
            "block_count": self.blocks,
            "context_length": self.settings.integer("max_position_embeddings"),
            "embedding_length": self.hidden,
            "feed_forward_length": self.wide,
            "attention.head_count": self.settings.integer("num_attention_heads"),
            "attention.layer_norm_epsilon": self.settings.number("layer_norm_eps", 1e-12),
            # Each token attends to the whole text. llama.cpp's default is causal attention.
            "attention.causal": False,
            "pooling_type": pooling.pooling(self.folder) or pooling.MEAN,
            "normalize_embeddings": pooling.normalizes(self.folder),
        }

    def source(self, name: str) -> str | None:
        """Skip tensors that embeddings do not need: position ids, the pooler, and the heads of the training tasks."""
        # BertModel names its tensors without this prefix; a checkpoint saved from a class with a task head has it.
        name = name.removeprefix("bert.")
        return None if name.startswith(_UNUSED) else name

    def edited(self, target: str, values: Array) -> Array:  # noqa: ARG002  # the families' contract
        """Return the values unchanged."""
        return values

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of embeddings and blocks."""
        found: dict[str, Shape] = {
            "token_embd.weight": (None, self.hidden),
            "position_embd.weight": (self.settings.integer("max_position_embeddings"), self.hidden),
            "token_types.weight": (self.settings.integer("type_vocab_size", 2), self.hidden),
        } | self._linear("token_embd_norm", self.hidden)
        for block in range(self.blocks):
            for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
                found |= self._linear(f"blk.{block}.{name}", self.hidden, self.hidden)
            found |= self._linear(f"blk.{block}.ffn_up", self.wide, self.hidden)
            found |= self._linear(f"blk.{block}.ffn_down", self.hidden, self.wide)
            for name in ("attn_output_norm", "layer_output_norm"):
                found |= self._linear(f"blk.{block}.{name}", self.hidden)
        return found

    def added(self) -> dict[str, Array]:
        """Return no tensors."""
        return {}

    def _linear(self, name: str, *shape: int) -> dict[str, Shape]:
        return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
