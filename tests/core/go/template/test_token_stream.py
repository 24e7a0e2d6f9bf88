import pytest

from puna.go.template.lexer import Kind
from puna.go.template.token_stream import TokenStream


def test_peek_does_not_advance_and_words_skip_spaces():
    stream = TokenStream("{{ .A  .B }}")
    assert stream.next().kind is Kind.LEFT_DELIMITER
    assert stream.peek().kind is Kind.SPACE
    assert stream.peek_word().value == ".A"
    assert stream.next().value == ".A"
    assert stream.next_word().value == ".B"


def test_the_parser_may_go_back_to_a_mark():
    stream = TokenStream("{{ .A | .B }}")
    stream.next()
    mark = stream.mark()
    first = [stream.next_word().value for _ in range(3)]
    stream.back(mark)
    assert [stream.next_word().value for _ in range(3)] == first == [".A", "|", ".B"]


@pytest.mark.parametrize(("text", "last"), [("a", Kind.EOF), ("", Kind.EOF), ("{{", Kind.ERROR)])
def test_the_last_token_comes_again_and_again(text, last):
    stream = TokenStream(text)
    while stream.next().kind is not last:
        pass
    assert [stream.next().kind for _ in range(3)] == [last] * 3


def test_errors_name_the_line_of_the_last_token_read():
    stream = TokenStream("a\nb{{ . }}")
    assert stream.line == 0
    stream.next()
    assert stream.line == 1
    stream.next()
    assert stream.line == 2
