from pathlib import Path

import pytest

from puna.backend import InvalidRequestError


@pytest.fixture
def vocabulary(parts):
    return parts("scripted").weights.vocabulary


def test_output_has_no_special_tokens(vocabulary):
    assert vocabulary.output_bytes(vocabulary.eos) == b""
    assert vocabulary.token_bytes(vocabulary.eos, special=True) == b"<|im_end|>"


def test_bytes_of_tokens_are_the_text(vocabulary):
    tokens = vocabulary.tokenize("grün 🙂", add_special=False, parse_special=False)
    assert b"".join(vocabulary.detokenize(tokens, special=False)).decode() == "grün 🙂"


@pytest.mark.parametrize("token", [-1, 10**6])
def test_ids_that_are_no_tokens_are_refused(vocabulary, token):
    with pytest.raises(InvalidRequestError, match=str(token)):
        vocabulary.validate([0, token])


def test_the_text_of_a_token_that_the_model_lacks_is_empty(vocabulary):
    assert vocabulary.text(-1) == ""


def test_only_whole_special_tokens_are_found_by_their_text(vocabulary):
    assert vocabulary.special_tokens(["<|im_end|>", "two words", "<|no_such|>"]) == {vocabulary.eos}
    assert vocabulary.is_special(vocabulary.eos)
    assert not any(map(vocabulary.is_special, vocabulary.tokenize("a", add_special=False, parse_special=False)))


@pytest.mark.parametrize("model", ["scripted", "chatter", "llamita"])
@pytest.mark.parametrize("text", ["</think>\n\n", "plain words", "\nx", " y"])
def test_a_continuation_has_no_space_of_the_tokenizers(parts, model, text):
    from puna.demo import install

    path = {"path": str(Path(install.__file__).with_name("llamita.gguf"))} if model == "llamita" else {}
    vocabulary = parts(model, **path).weights.vocabulary
    tokens = vocabulary.tokenize_continuation(text)
    assert b"".join(vocabulary.token_bytes(token, special=True) for token in tokens).decode() == text
