"""Converts Puna's demo models into folders of CTranslate2, with the weights that they were trained to.

CTranslate2 reads a folder: model.bin with the weights, config.json, and vocabulary.json with the spelling of each
token. Its converters read models of PyTorch, which is not installed here, so the weights are read from the GGUF files
and put into the specification that those converters fill. A tokenizer.json comes beside them, as it does for a
published model.
"""

from pathlib import Path

import gguf
import numpy as np
from ctranslate2.specs import TransformerDecoderModelSpec, TransformerEncoderModelSpec, TransformerEncoderSpec
from ctranslate2.specs.common_spec import Activation, EmbeddingsMerge
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

DEMO = Path(__file__).parents[3] / "core/puna/demo"
DECODER, ENCODER = DEMO / "llamita.gguf", DEMO / "llamita-embed.gguf"
CONTROL = 3
"""The type of special tokens in GGUF files."""


class Source:
    """The weights and the metadata of a GGUF file."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        self._tensors = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in reader.tensors}

    def __call__(self, name):
        return self._tensors[name]

    def tokens(self, wanted):
        kinds = zip(self.fields["tokenizer.ggml.tokens"], self.fields["tokenizer.ggml.token_type"], strict=True)
        return [text for text, kind in kinds if kind == wanted]


def decoder(folder):
    """Write llamita, a llama with a SentencePiece vocabulary, into a new folder."""
    source = Source(DECODER)
    spec = TransformerDecoderModelSpec.from_config(
        source.fields["llama.block_count"],
        source.fields["llama.attention.head_count"],
        activation=Activation.SWISH,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=True,  # as GGUF files of llamas order the rows of a head
    )
    spec.decoder.scale_embeddings = False
    spec.decoder.embeddings.weight = source("token_embd.weight")
    spec.decoder.projection.weight = source("output.weight")
    spec.decoder.layer_norm.gamma = source("output_norm.weight")
    for index, layer in enumerate(spec.decoder.layer):
        block = f"blk.{index}"
        layer.self_attention.layer_norm.gamma = source(f"{block}.attn_norm.weight")
        layer.self_attention.linear[0].weight = fused(source, block, "weight")
        layer.self_attention.linear[1].weight = source(f"{block}.attn_output.weight")
        layer.ffn.layer_norm.gamma = source(f"{block}.ffn_norm.weight")
        layer.ffn.linear_0.weight = source(f"{block}.ffn_gate.weight")
        layer.ffn.linear_0_noact.weight = source(f"{block}.ffn_up.weight")
        layer.ffn.linear_1.weight = source(f"{block}.ffn_down.weight")
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<s>", "</s>", "<unk>"
    spec.config.layer_norm_epsilon = source.fields["llama.attention.layer_norm_rms_epsilon"]
    save(spec, source, folder, sentencepiece(source))
    (folder / "tokenizer_config.json").write_text(f'{{"model_max_length": {source.fields["llama.context_length"]}}}')


def encoder(folder):
    """Write llamita-embed, a BERT with a WordPiece vocabulary, into a new folder."""
    source = Source(ENCODER)
    shape = TransformerEncoderSpec(
        source.fields["bert.block_count"],
        source.fields["bert.attention.head_count"],
        pre_norm=False,
        activation=Activation.GELU,
        layernorm_embedding=True,
        num_source_embeddings=2,
        embeddings_merge=EmbeddingsMerge.ADD,
    )
    spec = TransformerEncoderModelSpec(shape)
    shape.scale_embeddings = False
    shape.embeddings[0].weight = source("token_embd.weight")
    shape.embeddings[1].weight = source("token_types.weight")
    shape.position_encodings.encodings = source("position_embd.weight")
    set_both(shape.layernorm_embedding, source, "token_embd_norm")
    for index, layer in enumerate(shape.layer):
        block = f"blk.{index}"
        attention = layer.self_attention
        attention.linear[0].weight, attention.linear[0].bias = (
            fused(source, block, kind) for kind in ("weight", "bias")
        )
        for linear, name in (
            (attention.linear[1], "attn_output"),
            (layer.ffn.linear_0, "ffn_up"),
            (layer.ffn.linear_1, "ffn_down"),
        ):
            linear.weight, linear.bias = source(f"{block}.{name}.weight"), source(f"{block}.{name}.bias")
        set_both(attention.layer_norm, source, f"{block}.attn_output_norm")
        set_both(layer.ffn.layer_norm, source, f"{block}.layer_output_norm")
    spec.config.unk_token = "[UNK]"
    spec.config.layer_norm_epsilon = source.fields["bert.attention.layer_norm_epsilon"]
    save(spec, source, folder, wordpiece(source))


def fused(source, block, kind):
    """Return the weights or biases of queries, keys and values, one below the other."""
    return np.concatenate([source(f"{block}.attn_{part}.{kind}") for part in "qkv"])


def set_both(norm, source, name):
    norm.gamma, norm.beta = source(f"{name}.weight"), source(f"{name}.bias")


def save(spec, source, folder, tokenizer):
    folder.mkdir()
    spec.register_vocabulary([tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())])
    spec.validate()
    spec.save(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))


def sentencepiece(source):
    """Return the tokenizer of llamita. A SentencePiece vocabulary has scores, from which the merges follow."""
    pieces, scores = source.fields["tokenizer.ggml.tokens"], source.fields["tokenizer.ggml.scores"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = []
    for piece, index in vocabulary.items():
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        merges += [(-scores[index], pair) for pair in halves if set(pair) <= vocabulary.keys()]
    ranked = [pair for _, pair in sorted(merges, key=lambda merge: merge[0])]
    tokenizer = Tokenizer(models.BPE(vocabulary, ranked, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def wordpiece(source):
    """Return the tokenizer of llamita-embed. GGUF marks the pieces that begin a word, WordPiece marks the others."""
    special = source.tokens(CONTROL)
    pieces = [
        piece if piece in special or piece.startswith("[") else piece[1:] if piece.startswith("▁") else f"##{piece}"
        for piece in source.fields["tokenizer.ggml.tokens"]
    ]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    template = [(text, tokenizer.token_to_id(text)) for text in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=template)
    return tokenizer
