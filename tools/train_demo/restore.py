"""Reads an exported GGUF file back into parameters and vocabulary, so that training can go on from a shipped file."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from train_demo.shape import LAYER_TENSORS, Shape
from train_demo.vocabulary import Piece, Vocabulary


def read(path: Path) -> tuple[Shape, dict[str, NDArray[np.float32]], Vocabulary]:
    """Read what ``export.write`` wrote. The matrices come back with the precision of F16."""
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: np.asarray(tensor.data, np.float32) for tensor in reader.tensors}

    def field(key: str) -> Any:  # noqa: ANN401
        found = reader.get_field(key)
        if found is None:
            raise ValueError(f"{path} has no {key}")
        return found.contents()

    vocabulary = Vocabulary(
        [
            Piece(text, score, kind)
            for text, score, kind in zip(
                field("tokenizer.ggml.tokens"),
                field("tokenizer.ggml.scores"),
                field("tokenizer.ggml.token_type"),
                strict=True,
            )
        ]
    )
    shape = Shape(
        len(vocabulary),
        field("llama.embedding_length"),
        field("llama.block_count"),
        field("llama.attention.head_count"),
        field("llama.feed_forward_length"),
        field("llama.rope.freq_base"),
        field("llama.attention.layer_norm_rms_epsilon"),
    )
    parameters = {
        "embed": tensors["token_embd.weight"],
        "head": tensors["output.weight"].T,
        "norm": tensors["output_norm.weight"],
    }
    for name, tensor in LAYER_TENSORS.items():
        parameters[name] = np.stack([tensors[f"blk.{i}.{tensor}.weight"].T for i in range(shape.layers)])
    return shape, parameters, vocabulary
