"""Makes a tiny model of random weights for any architecture of llama.cpp. Needs: gguf, numpy, llama.cpp.

    python -m tools.architectures.make MODEL.gguf ARCHITECTURE [--experts]

prints the names of the model's tensors.

llama.cpp knows which tensors an architecture has, so it is asked: `llama_model_init_from_user` creates a model from
metadata alone, and hands each tensor over to be filled. Its name and its shape are noted, the values are drawn here,
and the file is written by gguf.
"""

import argparse
import ctypes
import math
import sys
import tempfile
from collections.abc import Callable, Mapping
from ctypes import c_char_p, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import gguf
import llama_cpp.llama_cpp as lib
import numpy as np
from tools.architectures.hyperparameters import Long, Value, metadata, shape_of

from puna_ggml_kernels import ggml
from puna_llama_cpp.binding.native_log import captured_log

WORDS = ["the", "wind", "and", "river", "stone", "light", "we", "go", "on", "sun", "moon", "night"]
CONTROLS = ["<|unused|>", "<|user|>", "<|stop|>", "</s>", "<unk>", "<s>", "<|endoftext|>"]
"""The first tokens. llama.cpp asks for some of them by name."""
_DIMENSIONS_AT = 16
"""Bytes of a ggml_tensor before its dimensions: a type and a pointer, aligned."""
_TYPES: dict[type, gguf.GGUFValueType] = {
    bool: gguf.GGUFValueType.BOOL,
    int: gguf.GGUFValueType.UINT32,
    float: gguf.GGUFValueType.FLOAT32,
    str: gguf.GGUFValueType.STRING,
}


class RefusedError(Exception):
    """llama.cpp makes no model of this metadata; the text is its reason."""


@dataclass(frozen=True)
class Tensor:
    """A tensor that llama.cpp asks for. Its dimensions are in numpy's order."""

    shape: tuple[int, ...]
    type: int


def _letters(value: int) -> str:
    """Return the printable stand-in of a byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(value) if value in printable else chr(256 + sorted({*range(256)} - {*printable}).index(value))


def _begin(path: Path, architecture: str, values: Mapping[str, Value]) -> gguf.GGUFWriter:
    """Open a file and add its metadata: a byte-level vocabulary, and the keys of the architecture."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        name = key[1:] if key.startswith("/") else f"{architecture}.{key}"
        if isinstance(value, (bool, int, float, str)):
            writer.add_key_value(name, value, _TYPES[type(value)])
        else:
            kind = gguf.GGUFValueType.UINT64 if isinstance(value, Long) else _TYPES[type(value[0])]
            writer.add_key_value(name, list(value), gguf.GGUFValueType.ARRAY, sub_type=kind)
    size = shape_of(architecture).vocabulary
    tokens = [*CONTROLS, *map(_letters, range(256))]
    tokens += [_letters(32) + word for word in WORDS]
    tokens += [f"{_letters(32)}w{number}" for number in range(size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(CONTROLS) + [gguf.TokenType.NORMAL] * (size - len(CONTROLS)))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_token_type_count(2)
    return writer


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _assistant_tensors(values: Mapping[str, Value]) -> dict[str, Tensor]:
    """Return the tensors of an assistant of Gemma 4. llama.cpp aborts when it is asked for them."""
    sizes = [values[key] for key in ("embedding_length", "embedding_length_out", "feed_forward_length", "vocab_size")]
    width, state, forward, tokens, heads, head = map(
        int, [*sizes, values["attention.head_count"], values["attention.key_length"]]
    )
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (tokens, width),
        "output_norm.weight": (width,),
        "nextn.pre_projection.weight": (width, 2 * state),
        "nextn.post_projection.weight": (state, width),
        "rope_freqs.weight": (head // 2,),
    }
    for layer in range(int(values["block_count"])):
        norms = "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"
        of_layer = {
            **dict.fromkeys(norms, (width,)),
            "attn_q": (heads * head, width),
            "attn_q_norm": (head,),
            "attn_output": (width, heads * head),
            "layer_output_scale": (1,),
            **dict.fromkeys(("ffn_gate", "ffn_up"), (forward, width)),
            "ffn_down": (width, forward),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in of_layer.items()}
    return {name: Tensor(shape, gguf.GGMLQuantizationType.F32) for name, shape in shapes.items()}


def wanted_tensors(architecture: str, values: Mapping[str, Value]) -> dict[str, Tensor]:
    """Ask llama.cpp which tensors a model of this metadata has. Raises RefusedError."""
    if architecture == "gemma4-assistant":
        return _assistant_tensors(values)
    found: dict[str, Tensor] = {}
    name_of = ggml.function("ggml_get_name", c_char_p, c_void_p)
    dimensions_of = ggml.function("ggml_n_dims", ctypes.c_int, c_void_p)
    vectors = shape_of(architecture).vectors

    def note(tensor: int, _data: object) -> None:
        sizes = (c_int64 * 4).from_address(tensor + _DIMENSIONS_AT)
        shape = tuple(reversed(sizes[: dimensions_of(tensor)]))
        name = name_of(tensor).decode()
        if any(part in name for part in vectors):
            shape = (math.prod(shape),)
        found[name] = Tensor(shape, ctypes.c_int.from_address(tensor).value)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metadata.gguf"
        _write(_begin(path, architecture, values))
        opened = ggml.function("gguf_init_from_file", c_void_p, c_char_p, ggml.GgufParameters)(
            str(path).encode(), ggml.GgufParameters(True, None)
        )
    callback = lib.llama_model_set_tensor_data_t(note)
    lib.llama_backend_init()
    captured_log().clear()
    parameters = lib.llama_model_default_params()
    parameters.use_extra_bufts, parameters.load_mtp = False, True
    model = lib.llama_model_init_from_user(c_void_p(opened), callback, c_void_p(), parameters)
    ggml.function("gguf_free", None, c_void_p)(opened)
    if not model:
        raise RefusedError(captured_log().load_error())
    lib.llama_model_free(model)
    # The scales of NVFP4, which no other type has.
    scaled = {name.removesuffix("input_scale") for name in found if name.endswith(".input_scale")}
    left_out = {f"{prefix}{suffix}" for prefix in scaled for suffix in ("scale", "input_scale")}
    left_out |= {name for name in found if any(part in name for part in shape_of(architecture).without)}
    return {name: tensor for name, tensor in found.items() if name not in left_out}


def _values(name: str, shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    """Draw the weights of a tensor, of sizes with which a model of random weights still depends on each of them."""
    values = draw.standard_normal(shape, dtype=np.float32)
    if "ssm_a" in name:
        return -np.abs(values)  # the decay of a state
    if name.startswith(("rope_", "blk.")) and "rope_f" in name:
        return 1 + np.abs(values)
    if name.endswith(("attn_q_norm.weight", "attn_k_norm.weight")):
        # Some architectures do not divide the products of queries and keys by anything.
        return (1 + values / 10) / 3
    if "norm" in name and name.endswith("weight"):
        return 1 + values / 10
    if len(shape) < 2:
        return values / 10
    return values * np.float32(1.5 / shape[-1] ** 0.5)


def make(
    path: Path,
    architecture: str,
    *,
    experts: bool = False,
    heads: int = 0,
    seed: int = 1,
    change: Callable[[dict[str, np.ndarray]], None] = lambda _: None,
) -> dict[str, Tensor]:
    """Write the tiny model of an architecture in F32, and return its tensors. Raises RefusedError.

    `experts`: with the keys of a mixture of experts, which some architectures must have and others ignore. `heads`:
    layers that draft for the model. `change` may change the weights, which it gets by their names, or remove some.
    """
    values = metadata(architecture, experts=experts, heads=heads)
    tensors = wanted_tensors(architecture, values)
    writer = _begin(path, architecture, values)
    writer.add_name(path.stem)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    draw = np.random.default_rng(seed)
    weights = {}
    for name, tensor in tensors.items():
        drawn = _values(name, tensor.shape, draw)
        if name == "token_embd.weight" and "output.weight" in tensors:
            drawn *= 10  # a matrix of its own makes the logits, which these numbers would make certain
        weights[name] = np.zeros(tensor.shape, np.int32) if tensor.type == gguf.GGMLQuantizationType.I32 else drawn
    change(weights)
    for name, values_of_tensor in weights.items():
        writer.add_tensor(name, values_of_tensor)
    _write(writer)
    return tensors


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("architecture")
    parser.add_argument("--experts", action="store_true", help="with the keys of a mixture of experts")
    given = parser.parse_args()
    try:
        tensors = make(given.path, given.architecture, experts=given.experts)
    except RefusedError as error:
        print(error, file=sys.stderr)
        return 1
    print(*sorted(tensors), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
