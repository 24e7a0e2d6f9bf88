"""Which files have a head that llama.cpp runs: a layer that drafts for a model."""

from pathlib import Path

import llama_cpp.llama_cpp as lib

from puna.backend import ModelSpec
from puna.gguf import reader as gguf
from puna_llama_cpp.binding import architectures, hidden_states
from puna_llama_cpp.binding.weights import Weights


def has_head(file: gguf.GGUF) -> bool:
    """Return whether a file has a head that runs, with all tensors without which llama.cpp would end the process."""
    needed = architectures.OWN_HEADS.get(file.architecture)
    layers = file.metadata.get(f"{file.architecture}.block_count")
    count = file.metadata.get(f"{file.architecture}.nextn_predict_layers")
    if needed is None or not isinstance(layers, int) or not isinstance(count, int) or count < 1:
        return False
    if count > 1 and file.architecture not in architectures.SEVERAL_HEADS:
        return False
    names = {tensor.name for tensor in file.tensors}
    return all(f"blk.{layers - count}.{each}" in names for each in needed)


def is_only_head(file: gguf.GGUF) -> bool:
    """Return whether a file has a head, and not the model for which it drafts."""
    drafts = bool(file.metadata.get(f"{file.architecture}.nextn_predict_layers"))
    return drafts and not any(tensor.name.startswith("blk.0.") for tensor in file.tensors)


def wants_head(spec: ModelSpec) -> bool:
    """Return whether a specification asks for the head that its own file has."""
    asked = spec.draft_tokens > 0 and not spec.draft_path
    drafts = bool(spec.backend_options.get("speculative_decoding", True))
    if not (asked and drafts and hidden_states.available()):
        return False
    try:
        return has_head(gguf.read(Path(spec.path)))
    except (gguf.GGUFError, OSError):
        return False  # loading it says why


def reads_layers(head: Weights, target: Weights) -> bool:
    """Return whether an EAGLE-3 head reads layers that a model has and llama.cpp hands out."""
    layers = hidden_states.layers_read(head.pointer)
    width = head.metadata(f"{head.architecture}.target_hidden_size")
    same = width == str(lib.llama_model_n_embd(target.pointer)) == str(target.embedding_length)
    return same and bool(layers) and all(0 <= layer <= target.layers for layer in layers)


def fits(head: Weights, target: Weights) -> bool:
    """Return whether a head reads the states of a model, and text alone is what both take.

    With M-RoPE, llama.cpp aborts in the graph of a head.
    """
    widths = {int(lib.llama_model_n_embd_out(each.pointer)) for each in (head, target)}
    return len(widths) == 1 and lib.llama_model_rope_type(head.pointer) != lib.LLAMA_ROPE_TYPE_MROPE
