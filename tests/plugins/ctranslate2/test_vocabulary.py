"""Three ways of spelling tokens."""

import json
import shutil

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from puna.backend import InvalidRequestError
from puna_ctranslate2.folder import Folder
from puna_ctranslate2.vocabulary import Vocabulary, byte_characters

TEXT = "Zoë said: 🙂\n\tyes  twice\0"


def folder_of(tokenizer, folder, **config):
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    spellings = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
    (folder / "vocabulary.json").write_text(json.dumps(spellings))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.bin").touch()
    return Folder(str(folder))


@pytest.fixture
def byte_level(tmp_path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["the sky is blue because the light is blue"] * 3, trainer)
    tokenizer.add_tokens(["<ÿ>"])
    # Some published files hold what suits training.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=20, pad_token="<|end|>", pad_id=0)
    return Vocabulary(folder_of(tokenizer, tmp_path / "bytes", eos_token="<|end|>"))


@pytest.fixture
def sentencepiece(decoder):
    return Vocabulary(Folder(str(decoder)))


def written(vocabulary, text, *, special=False, **how):
    tokens = vocabulary.tokenize(text, **{"add_special": False, "parse_special": False} | how)
    return b"".join(vocabulary.token_bytes(token, special=special) for token in tokens).decode()


def test_the_characters_of_bytes_are_those_of_the_package():
    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_characters().values()) == list(range(256))


def test_byte_level_tokens_give_back_their_text(byte_level):
    assert written(byte_level, TEXT) == TEXT
    assert written(byte_level, "the sky is blue") == "the sky is blue"
    assert written(byte_level, "a<ÿ>b") == "a<ÿ>b"


def test_pieces_give_back_their_text(sentencepiece):
    assert written(sentencepiece, TEXT) == f" {TEXT}"


def test_word_pieces_give_back_their_words(encoder):
    vocabulary = Vocabulary(Folder(str(encoder)))
    assert written(vocabulary, "the Sky is bluest") == " the sky is bluest"
    assert (len(vocabulary.prefix), len(vocabulary.suffix)) == (1, 1)


@pytest.mark.parametrize("which", ["byte_level", "sentencepiece"])
def test_special_tokens_are_found_only_when_asked_for(which, request):
    vocabulary = request.getfixturevalue(which)
    end = vocabulary.spellings[vocabulary.end_ids[0]]
    assert vocabulary.end_ids == vocabulary.ids(end)
    assert vocabulary.end_ids[0] in vocabulary.tokenize(f"a{end}b", add_special=False, parse_special=True)
    assert vocabulary.end_ids[0] not in vocabulary.tokenize(f"a{end}b", add_special=False, parse_special=False)
    assert written(vocabulary, f"a{end}b").strip() == f"a{end}b"
    assert written(vocabulary, f"a{end}", parse_special=True).strip() == "a"
    assert written(vocabulary, f"a{end}", parse_special=True, special=True).strip() == f"a{end}"


def test_tokens_at_the_ends_are_added_when_asked_for(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"[A]": 0, "[Z]": 1, "a": 2, "?": 3}, unk_token="?"))
    tokenizer.add_special_tokens(["[A]", "[Z]"])
    template = processors.TemplateProcessing(single="[A] $A [Z]", special_tokens=[("[A]", 0), ("[Z]", 1)])
    tokenizer.post_processor = template
    vocabulary = Vocabulary(folder_of(tokenizer, tmp_path / "words"))
    assert (vocabulary.prefix, vocabulary.suffix, vocabulary.end_ids) == ([0], [1], [])
    assert vocabulary.tokenize("a", add_special=True, parse_special=True) == [0, 2, 1]


def test_more_end_tokens_come_from_the_generation_config(decoder, tmp_path):
    copied = shutil.copytree(decoder, tmp_path / "copied")
    (copied / "generation_config.json").write_text('{"eos_token_id": [7, 2]}')
    assert Vocabulary(Folder(str(copied))).end_ids == [2, 7]


def test_a_file_that_is_no_tokenizer_is_refused(decoder, tmp_path):
    copied = shutil.copytree(decoder, tmp_path / "copied")
    (copied / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidRequestError, match=r"tokenizer\.json cannot be read"):
        Vocabulary(Folder(str(copied)))
