"""The sizes of llamita's network, for those who need no JAX."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; one head has ``width // heads`` numbers."""

    vocabulary: int
    width: int = 128
    layers: int = 6
    heads: int = 4
    inner: int = 352
    rope_base: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head(self) -> int:
        """Numbers in one attention head."""
        return self.width // self.heads


LAYER_TENSORS = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
"""Parameters of a layer, and the names of their tensors in GGUF."""
