"""Qwen 2, 2.5 and 3."""

from typing import ClassVar

from puna.models.convert import rope
from puna.models.convert.family import Decoder, Pairs, Shape


class Qwen2(Decoder):
    """Qwen2ForCausalLM."""

    architecture: ClassVar[str] = "qwen2"

    def metadata(self) -> Pairs:
        """Return the keys of a decoder and of its rotary positions."""
        return super().metadata() | rope.metadata(self.settings, self.default_theta)

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes, with biases of queries, keys and values."""
        found = super().shapes()
        for block in range(self.blocks):
            # Qwen 2 always has these biases; config.json has no key for them.
            for name, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):
                found[f"blk.{block}.attn_{name}.bias"] = (heads * self.head,)
        return found


class Qwen3(Decoder):
    """Qwen3ForCausalLM."""

    architecture: ClassVar[str] = "qwen3"
    default_head: ClassVar[int | None] = 128

    def metadata(self) -> Pairs:
        """Return the keys of a decoder, its rotary positions and the size of a head."""
        return super().metadata() | rope.metadata(self.settings, self.default_theta) | self.head_sizes()

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes, with norms of queries and keys."""
        found = super().shapes()
        for block in range(self.blocks):
            found |= {f"blk.{block}.attn_{name}_norm.weight": (self.head,) for name in ("q", "k")}
        return found


class Qwen3Moe(Qwen3):
    """Qwen3MoeForCausalLM."""

    architecture: ClassVar[str] = "qwen3moe"

    def metadata(self) -> Pairs:
        """Return Qwen 3's keys and those of its experts."""
        return super().metadata() | {
            "expert_count": self.settings.integer("num_experts"),
            "expert_used_count": self.settings.integer("num_experts_per_tok"),
            "expert_feed_forward_length": self.settings.integer("moe_intermediate_size"),
        }

    def feed_forward(self) -> dict[str, Shape]:
        """Return the shapes, with those of the experts."""
        return self.experts(self.settings.integer("num_experts"), self.settings.integer("moe_intermediate_size"))
