"""Special tokens in texts, over a fake library whose tokens are bytes."""

import pytest

from puna.backend import InvalidRequestError
from puna_ctransformers.vocabulary import CONTROL, UNKNOWN, USER_DEFINED, Vocabulary

NORMAL = 1
TEXTS = (b"<unk>", b"<s>", b"</s>", b"<a>", b"<a><b>", b"<0x00>")
KINDS = (UNKNOWN, CONTROL, CONTROL, USER_DEFINED, USER_DEFINED, NORMAL)
OFFSET = 100


class Header:
    """A file's metadata, by key."""

    def __init__(self, **values):
        self.values = values

    def texts(self, key):
        return TEXTS

    def numbers(self, key):
        return KINDS

    def number(self, key, default=0):
        return self.values.get(key.rpartition(".")[2], default)

    flag = number


class Library:
    """Gives each byte a token."""

    def tokenize(self, text):
        return [OFFSET + byte for byte in text]

    def token_bytes(self, token):
        return bytes([token - OFFSET])


def ids(text, parse_special=True, add_special=False, **values):
    return Vocabulary(Header(**values), Library()).tokenize(text, add_special=add_special, parse_special=parse_special)


def test_special_tokens_are_found_in_a_text():
    assert ids("x<s>y") == [OFFSET + ord("x"), 1, OFFSET + ord("y")]
    assert ids("<s>", parse_special=False) == [OFFSET + byte for byte in b"<s>"]


def test_the_longer_of_two_that_begin_at_one_place_counts():
    assert ids("<a><b><a>") == [4, 3]


def test_the_unknown_token_is_no_text():
    assert ids("<unk>") == [OFFSET + byte for byte in b"<unk>"]


def test_a_zero_byte_never_reaches_the_library():
    assert ids("a\0b", parse_special=False) == [OFFSET + ord("a"), 5, OFFSET + ord("b")]
    assert Vocabulary(Header(), Library()).token_bytes(5, special=False) == b"\0"


def test_the_file_says_which_tokens_are_added():
    assert ids("a", add_special=True) == [1, OFFSET + ord("a")]
    added = ids("a", add_special=True, add_bos_token=False, add_eos_token=True, eos_token_id=2)
    assert added == [OFFSET + ord("a"), 2]


def test_special_tokens_have_bytes_only_on_demand():
    vocabulary = Vocabulary(Header(), Library())
    assert vocabulary.token_bytes(1, special=False) == b""
    assert vocabulary.token_bytes(1, special=True) == b"<s>"
    assert vocabulary.text(99) == ""


@pytest.mark.parametrize("token", [-1, len(TEXTS)])
def test_ids_that_are_no_tokens_are_refused(token):
    with pytest.raises(InvalidRequestError, match=str(token)):
        Vocabulary(Header(), Library()).validate([token])
