"""Gemma 1, 2 and 3."""

from typing import ClassVar

from puna.models.convert import rope
from puna.models.convert.family import Decoder, Pairs, Shape
from puna.models.convert.safetensors import Array

_PICTURES = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


class Gemma(Decoder):
    """GemmaForCausalLM."""

    architecture: ClassVar[str] = "gemma"
    is_always_tied: ClassVar[bool] = True

    def metadata(self) -> Pairs:
        """Return the keys of a decoder and the size of a head."""
        return super().metadata() | self.head_sizes()

    def source(self, name: str) -> str | None:
        """Skip an output tensor: the architecture shares the embeddings."""
        return None if name == "lm_head.weight" else super().source(name)

    def edited(self, target: str, values: Array) -> Array:
        """Add one to norms, which are stored as their difference from one."""
        # llama.cpp multiplies by the stored weight. Norms have one dimension, so they are float32 here and never the
        # bits of BF16.
        return values + 1 if target.endswith("norm.weight") else values


class Gemma2(Gemma):
    """Gemma2ForCausalLM."""

    architecture: ClassVar[str] = "gemma2"
    softcaps: ClassVar[dict[str, float]] = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}

    def metadata(self) -> Pairs:
        """Return Gemma's keys, the length of the sliding window, and the soft caps of logits."""
        caps: Pairs = {key: self.settings.number(key, default) for key, default in self.softcaps.items()}
        return super().metadata() | caps | {"attention.sliding_window": self.settings.integer("sliding_window", 4096)}

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes, with norms before and after attention and feed-forward."""
        found = super().shapes()
        for block in range(self.blocks):
            found |= {f"blk.{block}.post_{part}_norm.weight": (self.hidden,) for part in ("attention", "ffw")}
        return found


class Gemma3(Gemma2):
    """Gemma3ForCausalLM, and the text part of Gemma3ForConditionalGeneration."""

    architecture: ClassVar[str] = "gemma3"
    default_heads: ClassVar[int | None] = 8
    default_kv_heads: ClassVar[int | None] = 4
    default_head: ClassVar[int | None] = 256
    default_theta: ClassVar[float] = 1000000.0

    def metadata(self) -> Pairs:
        """Return Gemma's keys, those of rotary positions, and which blocks have a sliding window. Soft caps are written
        only where config.json states them."""
        # Gemma2's keys are passed over: its defaults for the soft caps are wrong for Gemma 3, which normalizes queries
        # and keys instead.
        found = Gemma.metadata(self) | rope.metadata(self.settings, self.default_theta)
        found |= {key: self.settings.number(key) for key in self.softcaps if key in self.settings}
        # Blocks with a sliding window have a base frequency of their own. Newer folders state it in rope_parameters,
        # older ones as rope_local_base_freq.
        local = self.settings.part("rope_parameters").part("sliding_attention").number("rope_theta", 10000.0)
        return found | {
            "context_length": self.settings.integer("max_position_embeddings", 131072),
            "attention.sliding_window": self.settings.integer("sliding_window", 4096),
            "attention.sliding_window_pattern": self._windows(),
            "rope.freq_base_swa": self.settings.number("rope_local_base_freq", local),
        }

    def source(self, name: str) -> str | None:
        """Return names of the text part, and skip the vision part."""
        if name.startswith(_PICTURES):
            return None
        name = name.removeprefix("language_model.")
        return super().source(name.replace("model.language_model.", "model.", 1))

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes, with norms of queries and keys."""
        found = super().shapes()
        for block in range(self.blocks):
            found |= {f"blk.{block}.attn_{name}_norm.weight": (self.head,) for name in ("q", "k")}
        return found

    def _windows(self) -> list[bool]:
        kinds = self.settings.values.get("layer_types")
        # Newer folders list the type of each block; older ones state that each n-th block attends to everything.
        if isinstance(kinds, list) and len(kinds) == self.blocks:
            return [each == "sliding_attention" for each in kinds]
        pattern = max(self.settings.integer("sliding_window_pattern", 6), 1)
        return [(block + 1) % pattern != 0 for block in range(self.blocks)]
