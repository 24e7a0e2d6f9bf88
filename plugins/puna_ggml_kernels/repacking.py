"""Whether ggml should repack a model's weights, which hides them from the kernels."""

from typing import Final

from puna_ggml_kernels.loader import installed

_EXPERTS: Final = b"_exps"
"""Part of the names of tensors that hold the matrices of all experts of a layer."""


def should_repack(path: str) -> bool:
    """Return whether llama.cpp should let ggml repack the weights of a GGUF file.

    On x86 ggml repacks matrices of some types into an order that its own fast kernels need. The kernels of this package
    multiply Q4_0 and Q4_K as they are in the file. Models with experts, whose products the kernels leave to ggml, and
    models with a type that only ggml multiplies well are repacked as usual.
    """
    # Without the kernels, ggml's own kernels for repacked rows are the fast ones.
    if installed() is None:
        return True
    from puna_ggml_kernels import ggml

    tensors = ggml.read_tensor_types(path)
    if tensors is None:
        return True
    types = {kind for _, kind in tensors}
    experts = any(_EXPERTS in name for name, _ in tensors)
    others = types & {ggml.Q2_K, ggml.IQ4_NL, ggml.MXFP4}
    # llama.cpp has one switch for a whole model, so a few tensors decide for all.
    return experts or bool(others) or not types & {ggml.Q4_0, ggml.Q4_K}
