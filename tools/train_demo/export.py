"""Writes a checkpoint, or the mean of several, as GGUF: ``python -m train_demo.export --from DIR --to llamita.gguf``.

Only keys and tensor types that llama.cpp understood in September 2023, when the one inside ctransformers was cut.
"""

import argparse
import pickle
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from train_demo import restore
from train_demo.shape import LAYER_TENSORS, Shape
from train_demo.vocabulary import BOS, EOS, UNK, Vocabulary

CONTEXT = 2048


def write(path: Path, shape: Shape, parameters: dict[str, NDArray[np.float32]], vocabulary: Vocabulary) -> None:
    """Writes the model; matrices as F16 in llama.cpp's [out, in], norms as F32."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("llamita")
    writer.add_description("Puna's demo model: tiny, trained from nothing on made text")
    writer.add_license("MIT")
    writer.add_size_label(f"{sum(p.size for p in parameters.values()) / 1e6:.1f}M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.text.encode() for piece in vocabulary.pieces])
    writer.add_token_scores([piece.score for piece in vocabulary.pieces])
    writer.add_token_types([piece.kind for piece in vocabulary.pieces])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(UNK)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)

    def matrix(name: str, value: NDArray[np.float32]) -> None:
        writer.add_tensor(name, np.ascontiguousarray(value.astype(np.float16)))

    matrix("token_embd.weight", parameters["embed"])
    matrix("output.weight", parameters["head"].T)
    writer.add_tensor("output_norm.weight", parameters["norm"])
    for i in range(shape.layers):
        for name, tensor in LAYER_TENSORS.items():
            value = parameters[name][i]
            if value.ndim == 1:
                writer.add_tensor(f"blk.{i}.{tensor}.weight", value)
            else:
                matrix(f"blk.{i}.{tensor}.weight", value.T)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read(source: Path) -> tuple[Shape, dict[str, NDArray[np.float32]], Vocabulary]:
    """What a GGUF file or a folder of train_demo.train holds."""
    if source.is_file():
        return restore.read(source)
    state: dict[str, Any] = pickle.loads((source / "checkpoint.pickle").read_bytes())
    return Shape(**state["shape"]), state["parameters"], Vocabulary.load(source / "vocabulary.json")


def main() -> None:
    """Reads the command line and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--from", dest="sources", type=Path, nargs="+", required=True, help="folders of train_demo.train, or GGUF files"
    )
    parser.add_argument("--weights", type=float, nargs="+", help="weight of each source in the mean; equal if left out")
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    weights = options.weights or [1 / len(options.sources)] * len(options.sources)
    sources = [_read(source) for source in options.sources]
    shape, _, vocabulary = sources[0]
    # Where one run went on from another, the mean of their weights is better than either.
    mean = {
        name: np.asarray(sum(w * p[name] for w, (_, p, _) in zip(weights, sources, strict=True)), np.float32)
        for name in sources[0][1]
    }
    temporary = options.to.with_suffix(".part")
    write(temporary, shape, mean, vocabulary)
    temporary.replace(options.to)
    print(f"{options.to}: {options.to.stat().st_size} bytes")


if __name__ == "__main__":
    main()
