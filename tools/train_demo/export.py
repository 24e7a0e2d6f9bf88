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

from train_demo.shape import Shape
from train_demo.vocabulary import BOS, EOS, UNK, Vocabulary

CONTEXT = 2048
LAYER_TENSORS = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


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


def main() -> None:
    """Reads the command line and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="sources", type=Path, nargs="+", required=True, help="--out of train_demo.train")
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    paths = [source / "checkpoint.pickle" for source in options.sources]
    states: list[dict[str, Any]] = [pickle.loads(path.read_bytes()) for path in paths]
    # Where one run went on from another, the mean of their weights is better than either.
    mean = {
        name: np.asarray(np.mean([state["parameters"][name] for state in states], axis=0), np.float32)
        for name in states[0]["parameters"]
    }
    vocabulary = Vocabulary.load(options.sources[0] / "vocabulary.json")
    temporary = options.to.with_suffix(".part")
    write(temporary, Shape(**states[0]["shape"]), mean, vocabulary)
    temporary.replace(options.to)
    print(f"{options.to}: {options.to.stat().st_size} bytes, steps {[state['step'] for state in states]}")


if __name__ == "__main__":
    main()
