"""Converting LoRA adapters: two low-rank matrices for each adapted matrix of the base."""

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Final

from gguf import GGMLQuantizationType

from puna.models.convert.failure import ConversionError, UnsupportedError
from puna.models.convert.family import Pairs, by_halves
from puna.models.convert.folder import Folder
from puna.models.convert.plan import Planned, in_kind, kind_of, names
from puna.models.convert.safetensors import Array, Weights
from puna.models.convert.settings import ModelSettings

CONFIG: Final = "adapter_config.json"
ARCHITECTURES: Final = ("gemma", "gemma2", "gemma3", "llama", "qwen2", "qwen3")
_NAME: Final = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")


@dataclass(frozen=True, slots=True)
class Base:
    """The base model that is adapted."""

    architecture: str
    blocks: int
    heads: int
    kv_heads: int


def metadata(folder: Folder, base: Base) -> Pairs:
    """Return the keys. Raises UnsupportedError and ConversionError."""
    if base.architecture not in ARCHITECTURES:
        raise UnsupportedError("unsupported architecture")
    if not (folder.path / CONFIG).is_file():
        raise ConversionError(f"open {CONFIG}: no such file or directory")
    settings = ModelSettings(folder.json(CONFIG))
    if settings.text("peft_type", "LORA") != "LORA" or settings.flag("use_dora"):
        raise UnsupportedError(f"{CONFIG}: only plain LoRA adapters are supported")
    rank = settings.integer("r")
    alpha = settings.number("lora_alpha", 8)  # peft's own default
    return {
        "general.type": "adapter",
        "adapter.type": "lora",
        # llama.cpp scales by alpha / rank. Rank-stabilized adapters scale by alpha / sqrt(rank).
        "adapter.lora.alpha": alpha * math.sqrt(rank) if settings.flag("use_rslora") else alpha,
    }


def plan(folder: Folder, base: Base) -> list[Planned]:
    """Return the matrices by name. Raises ConversionError for a tensor that fits no matrix of the base."""
    known = names(base.architecture, base.blocks)
    # The tensor map is the base's, so that an adapter gets the names that llama.cpp looks up when it applies it.
    found: dict[str, Planned] = {}
    for name, weights in folder.weights().items():
        match = _NAME.fullmatch(name)
        target = match and known.get_name(_layer(match["layer"]))
        if not match or not target or len(weights.shape) != 2:
            raise ConversionError(f'"{name}" is no part of a LoRA adapter for {base.architecture}')
        full = f"{target}.weight.lora_{match['part'].lower()}"
        # Both halves are matrices, also where the rank is one.
        kind = kind_of(full, weights, 2)
        found[full] = Planned(full, weights.shape, kind, partial(_made, full, weights, kind, base))
    _check(found)
    return [found[name] for name in sorted(found)]


def _layer(name: str) -> str:
    """Return the name of a layer in gguf's map."""
    return name.removeprefix("language_model.").replace("model.language_model.", "model.", 1)


def _check(found: dict[str, Planned]) -> None:
    """Check that every matrix has its counterpart. Ranks may differ between layers."""
    if not found:
        raise ConversionError("there are no tensors in the adapter")
    for name, tensor in found.items():
        other = found.get(name[:-1] + ("b" if name.endswith("a") else "a"))
        if other is None:
            raise ConversionError(f'"{name}" lacks its other half')
        if name.endswith("a") and tensor.shape[0] != other.shape[1]:
            raise ConversionError(f'"{name}" has rank {tensor.shape[0]}, its other half {other.shape[1]}')


def _made(target: str, weights: Weights, kind: GGMLQuantizationType, base: Base) -> Array:
    values = in_kind(weights, kind)
    # Only B has the rows of the base's matrix. The rows of A are ranks, whose order does not matter.
    if base.architecture != "llama" or not target.endswith("_b"):
        return values
    if ".attn_q." in target:
        return by_halves(values, base.heads)
    return by_halves(values, base.kv_heads) if ".attn_k." in target else values
