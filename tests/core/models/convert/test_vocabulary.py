"""Tokenizers: what the files say, and how llama.cpp takes text apart with what becomes of them."""

import pytest
from tests.core.models.convert import folders, tokenizers

from puna.models.convert import vocabulary
from puna.models.convert.failure import ConversionError, UnsupportedError
from puna.models.convert.folder import Folder
from puna.models.convert.tokens import Kind


def test_bytes_in_pairs(convert, tmp_path):
    converted = convert(folders.llama().write(tmp_path / "m"))
    keys = converted.keys()
    assert (keys["tokenizer.ggml.model"], keys["tokenizer.ggml.pre"]) == ("gpt2", "llama-bpe")
    assert keys["tokenizer.ggml.merges"][:3] == ["Ġ t", "Ġt h", "Ġth e"]
    assert keys["tokenizer.ggml.token_type"][-5:] == [1, 3, 3, 3, 3]
    assert keys["tokenizer.chat_template"] == tokenizers.CHATML
    assert converted.tokenize(" the there catx", "<|im_start|> on", "é\n") == [
        ["<|begin|>", "Ġthe", "Ġthere", "Ġcat", "x"],
        ["<|begin|>", "<|im_start|>", "Ġon"],
        ["<|begin|>", "Ã", "©", "Ċ"],
    ]


def test_embeddings_without_tokens_get_unused_ones(convert, tmp_path):
    keys = convert(folders.qwen2().write(tmp_path / "m")).keys()
    assert keys["tokenizer.ggml.tokens"][-2:] == ["[PAD291]", "[PAD292]"]
    assert keys["tokenizer.ggml.token_type"][-2:] == [Kind.UNUSED, Kind.UNUSED]
    assert keys["tokenizer.ggml.add_bos_token"] is False


def test_tokens_without_embeddings_are_left_out(convert, tmp_path):
    folder = folders.gemma()
    folder.config["vocab_size"] = 300
    folder.tensors["model.embed_tokens.weight"] = folder.tensors["model.embed_tokens.weight"][:300]
    assert len(convert(folder.write(tmp_path / "m")).keys()["tokenizer.ggml.tokens"]) == 300


@pytest.mark.parametrize("make", [folders.mistral, folders.gemma])
def test_pieces_from_either_file(make, convert, tmp_path):
    converted = convert(make().write(tmp_path / "m"))
    keys = converted.keys()
    assert keys["tokenizer.ggml.model"] == "llama"
    assert keys["tokenizer.ggml.token_type"][:8] == [3, 3, 3, 2, 3, 3, 6, 6]
    adds_space = make is folders.mistral
    assert keys.get("tokenizer.ggml.add_space_prefix", True) is adds_space
    text = "there cat sat" if adds_space else " there cat sat"
    assert converted.tokenize(text, f"{text}<|im_end|>", text + "€") == [
        ["<s>", "▁there", "▁cat", "▁sat"],
        ["<s>", "▁there", "▁cat", "▁sat", "<|im_end|>"],
        ["<s>", "▁there", "▁cat", "▁sat", "<0xE2>", "<0x82>", "<0xAC>"],
    ]


def test_words_and_their_parts(convert, tmp_path):
    converted = convert(folders.write_sentences(folders.bert(), tmp_path / "m"))
    assert converted.keys()["tokenizer.ggml.token_type_count"] == 2
    assert converted.tokenize("The cats on") == [["[CLS]", "▁the", "▁cat", "s", "▁on", "[SEP]"]]


LOWER, STRIP = {"type": "Lowercase"}, {"type": "StripAccents"}


@pytest.mark.parametrize(
    ("normalizer", "lowercase", "strip_accents"),
    [
        ({"type": "BertNormalizer"}, True, True),
        ({"type": "BertNormalizer", "lowercase": False}, False, False),
        ({"type": "BertNormalizer", "lowercase": True, "strip_accents": False}, True, False),
        ({"type": "BertNormalizer", "lowercase": False, "strip_accents": True}, False, True),
        ({"type": "Sequence", "normalizers": [{"type": "NFD"}, LOWER, STRIP]}, True, True),
        (LOWER, True, False),
        (None, False, False),
    ],
)
def test_words_keep_their_capitals_and_accents_if_the_tokenizer_says_so(
    normalizer, lowercase, strip_accents, convert, tmp_path
):
    folder = folders.bert()
    folder.files["tokenizer.json"]["normalizer"] = normalizer
    converted = convert(folders.write_sentences(folder, tmp_path / "m"))
    keys = converted.keys()
    found = [keys[f"tokenizer.ggml.normalizer.{name}"] for name in ("lowercase", "strip_accents")]
    assert found == [lowercase, strip_accents]
    capital, accent = converted.tokenize("The", "thé")
    assert ("▁the" in capital) == lowercase
    assert ("▁the" in accent) == strip_accents


def test_every_end_ends(convert, tmp_path):
    folder = folders.llama()
    folder.files["tokenizer_config.json"]["eos_token"] = "Ġthe"
    place = tokenizers.BYTE_TOKENS.index("a")
    folder.files["generation_config.json"] = {"eos_token_id": [tokenizers.END, place]}
    converted = convert(folder.write(tmp_path / "m"))
    assert converted.keys()["tokenizer.ggml.eos_token_ids"] == [tokenizers.END, place]
    assert {tokenizers.END, place} <= set(converted.ends())


def test_where_config_knows_the_ends(convert, tmp_path):
    folder = folders.llama(eos_token_id=[5, 6])
    del folder.files["generation_config.json"], folder.files["tokenizer_config.json"]
    converted = convert(folder.write(tmp_path / "m"))
    assert {5, 6} <= set(converted.ends())


@pytest.mark.parametrize(
    ("files", "told", "names"),
    [
        ({"chat_template.jinja": b"J"}, None, None),
        ({"chat_template.json": {"chat_template": "J"}}, None, None),
        ({}, [{"name": "tools", "template": "T"}, {"name": "default", "template": "J"}], ["tools"]),
    ],
)
def test_templates_from_wherever(files, told, names, convert, tmp_path):
    folder = folders.llama()
    settings = folder.files["tokenizer_config.json"]
    del settings["chat_template"]
    settings |= {"chat_template": told} if told else {}
    folder.files |= files
    keys = convert(folder.write(tmp_path / "m")).keys()
    assert keys["tokenizer.chat_template"] == "J"
    assert keys.get("tokenizer.chat_templates") == names
    assert keys.get("tokenizer.chat_template.tools") == ("T" if names else None)


def _read(tmp_path, files):
    return vocabulary.read(Folder(folders.Folder({}, files).write(tmp_path)))


def test_what_is_no_tokenizer(tmp_path):
    with pytest.raises(UnsupportedError, match=r"^unknown tokenizer format$"):
        _read(tmp_path / "a", {})
    with pytest.raises(UnsupportedError, match=r'^unsupported tokenizer "Unigram"$'):
        _read(tmp_path / "b", {"tokenizer.json": {"model": {"type": "Unigram", "vocab": []}}})
    with pytest.raises(ConversionError, match="the vocabulary is not an object"):
        _read(tmp_path / "c", {"tokenizer.json": {"model": {"type": "BPE", "vocab": []}}})
    with pytest.raises(ConversionError, match="a token has the id -1"):
        _read(tmp_path / "d", {"tokenizer.json": {"model": {"type": "BPE", "vocab": {"a": -1}}}})
    too_large = b"\x0a\x00" * (9 << 20)
    not_utf8 = b"\x0a\x03\x0a\x01\xff"
    for number, data in enumerate((b"\x0a\x7f", b"\xff", b"\x0b", b"\x0a\x02\x18\x63", not_utf8, too_large)):
        with pytest.raises(ConversionError, match=r"^tokenizer\.model: not a model of SentencePiece$"):
            _read(tmp_path / f"e{number}", {"tokenizer.model": data})


def test_files_that_do_not_fit_together(tmp_path):
    files = tokenizers.bpe("llama3")
    files["tokenizer.json"]["post_processor"] = [1]
    with pytest.raises(ConversionError, match=r"^the tokenizer's files do not fit together"):
        vocabulary.metadata(Folder(folders.Folder({}, files).write(tmp_path)), 300)
