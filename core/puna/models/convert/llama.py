"""Llama and the architectures derived from it: Mistral and Mixtral."""

from typing import ClassVar

from puna.models.convert import rope
from puna.models.convert.family import Decoder, Pairs, Shape, by_halves
from puna.models.convert.safetensors import Array


class Llama(Decoder):
    """LlamaForCausalLM and MistralForCausalLM."""

    architecture: ClassVar[str] = "llama"

    def metadata(self) -> Pairs:
        """Return the keys. The size of a head is included only if config.json states it."""
        found = super().metadata() | rope.metadata(self.settings, self.default_theta)
        found |= {"vocab_size": self.settings.integer("vocab_size"), "rope.dimension_count": self.head}
        return found | (self.head_sizes() if "head_dim" in self.settings else {})

    def edited(self, target: str, values: Array) -> Array:
        """Reorder the rows of queries and keys so that rotary pairs are adjacent."""
        # Biases are reordered with their weights, since both names match.
        if ".attn_q." in target:
            return by_halves(values, self.heads)
        if ".attn_k." in target:
            return by_halves(values, self.kv_heads)
        return values

    def added(self) -> dict[str, Array]:
        """Return the factors of Llama 3.1's rotary scaling."""
        if rope.kind(self.settings) != "llama3":
            return {}
        # llama.cpp has no scaling type for Llama 3.1. It divides the rotary frequencies by this tensor.
        return {"rope_freqs.weight": rope.llama3_factors(self.settings, self.head, self.default_theta)}


class Mixtral(Llama):
    """MixtralForCausalLM."""

    default_theta: ClassVar[float] = 1000000.0

    def metadata(self) -> Pairs:
        """Return Llama's keys and the number of experts."""
        experts, used = self.settings.integer("num_local_experts"), self.settings.integer("num_experts_per_tok")
        return super().metadata() | {"expert_count": experts, "expert_used_count": used}

    def feed_forward(self) -> dict[str, Shape]:
        """Return the shapes, with those of the experts."""
        return self.experts(self.settings.integer("num_local_experts"), self.wide)
