import pytest
from train_demo.conversation import prompt
from train_demo.skills import conversation
from train_demo.vocabulary import BOS, MARKERS, Vocabulary, learn
from train_demo.words import Random


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = Random(3)
    return [prompt(conversation(rng)) for _ in range(400)]


@pytest.fixture(scope="module")
def vocabulary(texts: list[str]) -> Vocabulary:
    return learn(texts, merges=200, spaced=60)


def test_what_is_encoded_is_decoded_again(vocabulary: Vocabulary, texts: list[str]) -> None:
    for text in [*texts, "hällo 你好\t\n  two  spaces", ""]:
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_every_marker_is_one_token_wherever_it_stands(vocabulary: Vocabulary) -> None:
    for marker in MARKERS:
        (token,) = vocabulary.encode(marker)
        for text in (f"a{marker}b", f".{marker}.", f" {marker} ", f"{marker}{marker}", f"<{marker}>"):
            assert token in vocabulary.encode(text)


def test_a_name_is_cut_alike_after_a_space_a_quote_and_a_marker(vocabulary: Vocabulary) -> None:
    name = vocabulary.encode("Zorblaty")
    for before in (" ", '"', "<|user|>", "(", " is "):
        assert vocabulary.encode(before + "Zorblaty")[-len(name) :] == name


def test_digits_stand_alone(vocabulary: Vocabulary) -> None:
    assert len(vocabulary.encode("1234567890")) == 10


def test_both_halves_of_every_piece_are_pieces(vocabulary: Vocabulary) -> None:
    # llama.cpp reaches a piece only by merging two others.
    known = {piece.text for piece in vocabulary.pieces if piece.kind == 1}
    for text in known:
        assert len(text) == 1 or any({text[:cut], text[cut:]} <= known for cut in range(1, len(text)))


def test_a_prompt_begins_as_llama_cpp_begins_it(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode_prompt("Hi") == [BOS, *vocabulary.encode(" "), *vocabulary.encode("Hi")]


def test_learning_twice_gives_the_same_pieces(texts: list[str], vocabulary: Vocabulary) -> None:
    assert learn(texts, merges=200, spaced=60).pieces == vocabulary.pieces
