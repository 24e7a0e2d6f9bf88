"""Whether ggml should repack a model's weights, which hides them from the kernels."""

from puna_ggml_kernels.loader import installed


def should_repack(path: str) -> bool:
    """Return whether llama.cpp should let ggml repack the weights of a GGUF file.

    On x86 ggml repacks matrices of some types into an order that its own fast kernels need. The kernels of this package
    multiply all of these types as they are in the file.
    """
    # Without the kernels, ggml's own kernels for repacked rows are the fast ones.
    if installed() is None:
        return True
    from puna_ggml_kernels import ggml

    tensors = ggml.read_tensor_types(path)
    if tensors is None:
        return True
    # Other types are never repacked, and the answer does not matter for them.
    return not {kind for _, kind in tensors} & {ggml.Q2_K, ggml.Q4_0, ggml.Q4_K, ggml.IQ4_NL, ggml.MXFP4}
