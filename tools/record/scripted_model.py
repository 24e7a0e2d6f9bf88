"""Writes GGUF models that generate given texts token by token.

Theory. The file has the shape of GPT-2, whose positions are learned vectors, with attention and feed-forward of zeros
and token embeddings of zeros. What follows then depends on the position alone: the hidden state at position p is the
vector of p, a random one of plus and minus ones, and the row of a token in the output matrix is the sum of the vectors
of all positions at which this token comes next. All positions outside scripts share one vector, which leads to the end
of the answer. The product of a vector with itself is the width of the model, with
another about the root of the width, so the wanted token has the highest logit by far. `_Network` checks that before a
file is written, and takes a greater width if the distance is too small.

A file holds many scripts, each at a range of positions of its own. A request reaches its script by the length of its
prompt: the user's message ends with as many letters `x` as are missing. Tokens are single bytes and whole texts of
scripts. The only merge of the tokenizer is one that no prompt contains, so a prompt has one token for each byte, a few
special tokens apart.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

FIRST = 1536
"""Position of the first script. All prompts are shorter without the letters that are added."""
CONTEXT = 4096
WIDTHS = (256, 512, 1024)
NORMAL, CONTROL = 1, 3
HARMONY = ("<|return|>", "<|call|>")
"""llama.cpp ends an answer at the token `<|end|>`, unless the vocabulary has these."""
PADDING = "x"

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Script:
    """What a model writes after a prompt of `start` tokens."""

    start: int
    texts: tuple[str, ...]

    @property
    def end(self) -> int:
        """Return the first position after the script."""
        return self.start + len(self.texts) + 1


def scripts(answers: Sequence[Sequence[str]]) -> list[list[Script]]:
    """Place answers one behind the other; return the scripts of each file that is needed."""
    files: list[list[Script]] = [[]]
    for texts in answers:
        start = files[-1][-1].end if files[-1] else FIRST
        if start + len(texts) + 2 > CONTEXT:
            files.append([])
            start = FIRST
        files[-1].append(Script(start, tuple(texts)))
    return files


def _byte_character(value: int) -> str:
    """Return the character that byte-level vocabularies write for a byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if value in printable:
        return chr(value)
    return chr(256 + [each for each in range(256) if each not in printable].index(value))


def _spelled(text: str) -> str:
    return "".join(map(_byte_character, text.encode()))


class _Network:
    """The vocabulary, and the vectors that lead from a position to the next token."""

    def __init__(self, wanted: Sequence[Script], bos: str, eos: str) -> None:
        self.tokens = [bos, eos, *map(_byte_character, range(256)), "\u0100\u0100", *HARMONY]
        self.index = {token: number for number, token in enumerate(self.tokens)}
        following = {
            script.start - 1 + offset: self._token(_spelled(text))
            for script in wanted
            for offset, text in enumerate(script.texts)
        }
        self.positions, self.output = self._vectors(following)

    def _token(self, spelled: str) -> int:
        if spelled not in self.index:
            self.index[spelled] = len(self.tokens)
            self.tokens.append(spelled)
        return self.index[spelled]

    def _vectors(self, following: dict[int, int]) -> tuple[Matrix, Matrix]:
        for width in WIDTHS:
            vectors = np.random.default_rng(0).choice([-1.0, 1.0], (CONTEXT + 1, width)).astype(np.float32)
            positions, output = np.tile(vectors[CONTEXT], (CONTEXT, 1)), np.zeros((len(self.tokens), width), np.float32)
            output[1] = vectors[CONTEXT]
            for position, token in following.items():
                positions[position] = vectors[position]
                output[token] += vectors[position]
            logits = positions @ output.T
            right = (np.arange(CONTEXT), [following.get(position, 1) for position in range(CONTEXT)])
            best = logits[right].copy()
            logits[right] = -np.inf
            if (best - logits.max(axis=1)).min() > width / 8:
                return positions, output
        raise ValueError("too many scripts for one model")


def gguf_file(
    wanted: Sequence[Script], chat_template: str | None = None, bos: str = "<bos>", eos: str = "<eos>"
) -> bytes:
    """Return the model that writes these scripts.

    chat_template: a Jinja template to store in the file. bos, eos: the texts of its special tokens.
    """
    network = _Network(wanted, bos, eos)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scripted.gguf"
        writer = gguf.GGUFWriter(path, "gpt2")
        _add_metadata(writer, network, chat_template)
        _add_tensors(writer, network)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _add_metadata(writer: gguf.GGUFWriter, network: _Network, chat_template: str | None) -> None:
    writer.add_name("scripted answers")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(network.positions.shape[1])
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(len(network.tokens))
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(network.tokens)
    writer.add_token_types([CONTROL, CONTROL, *[NORMAL] * (len(network.tokens) - 2)])
    writer.add_token_merges(["\u0100 \u0100"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)


def _add_tensors(writer: gguf.GGUFWriter, network: _Network) -> None:
    width = network.positions.shape[1]
    writer.add_tensor("token_embd.weight", np.zeros((len(network.tokens), width), np.float32))
    writer.add_tensor("position_embd.weight", network.positions)
    writer.add_tensor("output.weight", network.output)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(width, np.float32))
    shapes = {
        "attn_qkv": (3 * width, width),
        "attn_output": (width, width),
        "ffn_up": (32, width),
        "ffn_down": (width, 32),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float32))
        writer.add_tensor(f"blk.0.{name}.bias", np.zeros(shape[0], np.float32))
