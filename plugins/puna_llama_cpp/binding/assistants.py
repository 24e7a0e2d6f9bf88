"""Which files are assistants of a model: heads without keys and values of their own, which read the model's.

llama.cpp lets each layer of an assistant read the KV cache of the model's last layer with a sliding window, or of its
last one without, whichever kind the layer is. It takes for granted that the shapes agree, and reads beyond the cache or
ends the process where they do not. So both headers are compared before an assistant is loaded.
"""

from puna.gguf import reader as gguf
from puna_llama_cpp.binding.architectures import ASSISTANTS


def misfit(assistant: gguf.GGUF, model: gguf.GGUF) -> str:
    """Return why an assistant cannot read the KV cache of a model; empty if it can. Both were read with arrays."""
    if model.architecture != ASSISTANTS[assistant.architecture]:
        return f"a head of the architecture {assistant.architecture} is not run for {model.architecture}"
    for key, other in (("embedding_length_out", "embedding_length"), *[("attention.sliding_window",) * 2]):
        if assistant.integer(key) != model.integer(other):
            return f"its {key} is {assistant.integer(key)}, but the model's {other} is {model.integer(other)}"
    layers = range(assistant.integer("block_count"))
    if not layers or assistant.integer("nextn_predict_layers") != len(layers):
        return f"{assistant.integer('nextn_predict_layers')} of its {len(layers)} layers draft, and not all"
    if {_windowed(assistant, layer) for layer in layers} != {True, False}:
        return "it has no layers of both kinds, with and without a sliding window"
    for layer in layers:
        if (reason := _layer_misfit(assistant, layer, model)) != "":
            return f"its layer {layer} {reason}"
    return ""


def _layer_misfit(assistant: gguf.GGUF, layer: int, model: gguf.GGUF) -> str:
    windowed = _windowed(assistant, layer)
    source = model.integer("block_count") - (2 if windowed else 1)
    with_keys = model.integer("block_count") - model.integer("attention.shared_kv_layers")
    if source >= with_keys:
        source = with_keys - (2 if windowed else 1)
    if source < 0 or _windowed(model, source) != windowed:
        return "finds no layer of its kind among the last ones of the model"
    read, written = _keys(assistant, layer), _keys(model, source)
    if read != written:
        return f"reads keys and values of the shape {read}, but the model's have {written}"
    heads, rotated = _of_layer(assistant, "attention.head_count", layer), _rotated(assistant, layer)
    if not read[0] or not heads or heads % read[0]:
        return f"has {heads} heads for {read[0]} heads of keys"
    return f"rotates {rotated} elements of {read[1]}" if rotated > read[1] or rotated % 2 else ""


def _keys(file: gguf.GGUF, layer: int) -> tuple[int, ...]:
    """Return the number of heads of a layer's keys and values, and the lengths of both."""
    key = "attention.head_count_kv" if file.has("attention.head_count_kv") else "attention.head_count"
    suffix = "_swa" if _windowed(file, layer) else ""
    lengths = (file.integer(f"attention.{each}_length{suffix}") for each in ("key", "value"))
    return _of_layer(file, key, layer), *lengths


def _rotated(file: gguf.GGUF, layer: int) -> int:
    """Return how many elements of a key have a position."""
    whole = file.integer("rope.dimension_count") or file.integer("attention.key_length")
    return (file.integer("rope.dimension_count_swa") or whole) if _windowed(file, layer) else whole


def _windowed(file: gguf.GGUF, layer: int) -> bool:
    return bool(_of_layer(file, "attention.sliding_window_pattern", layer))


def _of_layer(file: gguf.GGUF, key: str, layer: int) -> int:
    """Return a number that is the same for all layers, or one of each; 0 if there is none."""
    value = file.get(key)
    if isinstance(value, gguf.Array):
        value = value.values[layer] if value.values and layer < len(value.values) else 0
    return value if isinstance(value, int) else 0
