"""Tokenizers of a few hundred tokens, as the files that stand beside weights."""

import string
import struct

SPLITS = {
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
}
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = ["the", "then", "there", "cat", "sat", "on", "mat", "in", "hat", "and"]


def _merges(words, opening):
    """Merge every word from the left, behind the mark of a space."""
    found = []
    for word in words:
        whole = opening
        for letter in word:
            if (whole, letter) not in found:
                found.append((whole, letter))
            whole += letter
    return found


_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = [chr(byte) if byte in _PRINTABLE else "" for byte in range(256)]
_OTHERS = iter(chr(256 + place) for place in range(256))
BYTE_TOKENS = [token or next(_OTHERS) for token in _BYTES]
MERGES = _merges(WORDS, "Ġ")
BPE_TOKENS = BYTE_TOKENS + list(dict.fromkeys(left + right for left, right in MERGES))
BPE_SPECIALS = ["<|begin|>", "<|end|>", "<|im_end|>", "<|im_start|>"]
BPE_SIZE = len(BPE_TOKENS) + len(BPE_SPECIALS)
BEGIN, END, IM_END, IM_START = range(len(BPE_TOKENS), BPE_SIZE)

PIECE_SPECIALS = ["<pad>", "</s>", "<s>", "<unk>", "<|im_start|>", "<|im_end|>"]
_PIECE_MERGES = _merges(WORDS, "▁")
_MERGED = [left + right for left, right in _PIECE_MERGES]
_LETTERS = ["▁", *string.printable[:95].replace(" ", ""), "é"]
PIECES = PIECE_SPECIALS + [f"<0x{byte:02X}>" for byte in range(256)] + _MERGED + _LETTERS
PIECES_SIZE = len(PIECES)
_KINDS = {"<pad>": 3, "</s>": 3, "<s>": 3, "<unk>": 2}

WORD_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORD_TOKENS = [*WORD_SPECIALS, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), *WORDS]
WORDS_SIZE = len(WORD_TOKENS)


def text_of(tokens):
    """Write tokens of bytes as text; halves of characters are lost."""
    letters = "".join(BPE_TOKENS[token] for token in tokens)
    return bytes(BYTE_TOKENS.index(letter) for letter in letters).decode(errors="replace")


def added(token, place, special=True):
    return {"id": place, "content": token, "special": special, "single_word": False, "lstrip": False, "rstrip": False}


def bpe(split, template=CHATML):
    """A tokenizer of bytes, as Llama 3 and Qwen have it."""
    specials = [added(token, len(BPE_TOKENS) + place) for place, token in enumerate(BPE_SPECIALS)]
    steps = [{"type": "Split", "pattern": {"Regex": SPLITS[split]}, "behavior": "Isolated", "invert": False}]
    steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False})
    vocabulary = {token: place for place, token in enumerate(BPE_TOKENS)}
    merges = [f"{left} {right}" for left, right in MERGES]
    tokenizer = {
        "added_tokens": specials,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges, "byte_fallback": False},
    }
    config = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "add_bos_token": split == "llama3"}
    config |= {"chat_template": template} if template else {}
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config}


def pieces(model=False, template=""):
    """A tokenizer of SentencePiece, as tokenizer.model or only as tokenizer.json."""
    specials = [added(token, place) for place, token in enumerate(PIECE_SPECIALS)]
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>", "pad_token": "<pad>"}
    config |= {"add_bos_token": True, "add_eos_token": False}
    config |= {"chat_template": template} if template else {}
    tokenizer = {
        "added_tokens": specials,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "vocab": {piece: place for place, piece in enumerate(PIECES)},
            "merges": [list(pair) for pair in _PIECE_MERGES],
            "byte_fallback": True,
            "unk_token": "<unk>",
        },
    }
    files = {"tokenizer_config.json": config}
    if model:
        tokens = {str(place): added(token, place) for place, token in enumerate(PIECE_SPECIALS)}
        config["added_tokens_decoder"] = {key: value for key, value in tokens.items() if key in ("4", "5")}
        return files | {"tokenizer.model": _sentencepiece(), "tokenizer.json": tokenizer}
    return files | {"tokenizer.json": tokenizer}


def _sentencepiece():
    out = b""
    for place, piece in enumerate(PIECES):
        kind = _KINDS.get(piece, 6 if piece.startswith("<0x") else 4 if piece in PIECE_SPECIALS else 1)
        score = -float(place - 262) if place >= 262 else 0.0
        data = piece.encode()
        message = b"\x0a" + bytes([len(data)]) + data + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
        out += b"\x0a" + bytes([len(message)]) + message
    trainer = b"\x18\x02\x0d\x00\x00\x00\x00\x11" + bytes(8)  # another message, to be passed over
    adds_no_space = b"\x18\x00"
    return out + b"\x12" + bytes([len(trainer)]) + trainer + b"\x1a" + bytes([len(adds_no_space)]) + adds_no_space


def words():
    """A tokenizer of WordPiece, as BERT has it."""
    tokenizer = {
        "added_tokens": [added(token, place) for place, token in enumerate(WORD_SPECIALS)],
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "vocab": {token: place for place, token in enumerate(WORD_TOKENS)},
        },
    }
    config = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config | {"do_lower_case": True}}
