"""Facts about single architectures, by the name in `general.architecture`.

llama.cpp says most of what its caller has to know about a model: whether it is recurrent, whether it has an encoder,
how long its sliding window is. The facts here it does not say. Each names architectures of which llama.cpp computes
something else than asked, or ends the process, or which Ollama treats in a way of its own. `python -m
tools.architectures` finds the first two kinds. Read a new version of llama.cpp for each of them: what it has mended
can go.
"""

from collections.abc import Mapping
from typing import Final

MASKED_FIRST_ROW: Final = frozenset({"chameleon"})
"""Architectures whose graph takes the tokens of images out of the first row of logits alone.

A batch without logits ends the process. So each batch of them is a part of one sequence with one row, and none has
draft tokens.
"""
SINGLE_SEQUENCE: Final = frozenset({"plamo2", "arwkv7", "rwkv6qwen2"}) | MASKED_FIRST_ROW
"""Architectures that get one slot, since llama.cpp stores wrong states for several sequences, or masks one row.

PLaMo-2's go to wrong places. Of ARWKV-7 and QRWKV-6, those behind the first get the token shift of another token.
"""
OTHER_GRAPH_FOR_ONE_TOKEN: Final = frozenset({"minimax-m3"})
"""Architectures that have no draft tokens, since llama.cpp computes the attention of one token of a sequence in a way
of its own.

One token's attention reads the chosen blocks of keys, that of several reads all keys under a mask. The sums
have another order, so an answer would depend on what is drafted.
"""
UNSELECTED_OUTPUTS: Final = frozenset({"cogvlm"})
"""Architectures whose graph computes logits for all tokens of a batch.

llama.cpp then hands out the first rows, as if they were those of the tokens that were asked for.
"""
WITHOUT_FLASH_ATTENTION: Final = frozenset({"plm"})
"""Architectures whose graph hands its values over in a shape for which ggml aborts in flash attention."""
EAGLE: Final = "eagle3"
"""The architecture of heads that read layers of another model."""
GIVES_LAYERS: Final = frozenset({"gpt-oss", "llama", "qwen3", "qwen3moe"})
"""Architectures of models that such heads read; llama.cpp aborts for most others."""
ASSISTANTS: Final = {"gemma4-assistant": "gemma4"}
"""Architectures of heads that read the KV cache of a model, each with that of the model."""
HEADS: Final = frozenset({EAGLE, "dflash", *ASSISTANTS})
"""Architectures that compute nothing without the hidden states of another model; llama.cpp aborts if they are tried."""
_EXPERTS_ROUTER: Final = "ffn_gate_inp.weight"
OWN_HEADS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        ("cohere2moe", "deepseek2", "deepseek32", "glm-dsa", "glm4moe", "qwen35moe"),
        ("nextn.eh_proj.weight", _EXPERTS_ROUTER),
    ),
    **dict.fromkeys(("hy_v3", "qwen35", "step35"), ("nextn.eh_proj.weight",)),
}
"""Architectures whose files may have a layer behind the last one that drafts for the model (MTP, NextN).

Each with the tensors of that layer without which llama.cpp loads it, and aborts when it runs.
"""
GOES_BACK: Final = frozenset({"qwen35", "qwen35moe"})
"""Architectures with a recurrent state of which llama.cpp can keep older ones, so that draft tokens can be rejected.

It can for others too, whose heads do not run yet, or whose drafts change the last bits of a text (deepseek4).
"""
SEVERAL_HEADS: Final = frozenset({"hy_v3", "step35"})
"""Those of which a file may have several such layers, one for each token ahead. Only the first is run.

llama.cpp aborts for several of the others.
"""
MIN_IMAGE_TOKENS: Final = {"qwen2vl": 1024, "qwen25vl": 1024, "qwen3vl": 1024, "qwen3vlmoe": 1024}
"""The least number of tokens for an image. Ollama sets it for models that name places in an image."""

_WITHOUT_ROPE: Final = frozenset({"afmoe", "maple", "smollm3"})
"""Architectures of which some layers have no RoPE."""
_WITHOUT_ROPE_BESIDE_WINDOWS: Final = frozenset(
    {"cohere2", "cohere2moe", "exaone-moe", "exaone4", "llama4", "muse-glimmer", "smallthinker"}
)
"""The same, of models with a sliding window."""
_BAICHUAN_LAYERS_WITH_ROPE: Final = 32
"""llama.cpp tells the Baichuan with RoPE from the others by its number of layers."""


def rotates_all_layers(architecture: str, *, layers: int, window: int) -> bool:
    """Return whether every layer has RoPE, given the number of layers and the length of the sliding window.

    llama.cpp's shift rotates the keys of layers without RoPE all the same.
    """
    if architecture in _WITHOUT_ROPE_BESIDE_WINDOWS:
        return not window
    if architecture == "baichuan":
        return layers == _BAICHUAN_LAYERS_WITH_ROPE
    return architecture not in _WITHOUT_ROPE
