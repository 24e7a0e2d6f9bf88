import pytest

from puna.prompt.builtin.notation.xml_text import read


def test_an_element_has_its_own_text_and_its_children() -> None:
    found = read(["", "<f=get>", "\n", "<p=a>", "1", "</p>", " ", "<p=b>", "2", "</p>", "", "</f>", "rest"], "f")
    assert (found.tag, found.name, found.text) == ("f", "get", "\n ")
    assert [(child.name, child.text) for child in found.named("p")] == [("a", "1"), ("b", "2")]


def test_a_name_may_be_an_attribute_with_entities() -> None:
    assert read(["", '<f name="a&amp;b">', "", "</f>", ""], "f").name == "a&b"


def test_line_ends_are_those_of_xml() -> None:
    assert read(["", "<f=g>", "a\r\nb\rc", "</f>", ""], "f").text == "a\nb\nc"


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        (["text"], "EOF"),
        (["\n", "<f=g>", "\n"], "XML syntax error on line 3: unexpected EOF"),
        (["", "</f>", ""], "XML syntax error on line 1: unexpected end element </f>"),
        (["", "<f=g>", "", "<p=a>", "", "</f>", ""], "XML syntax error on line 1: element <p> closed by </f>"),
        (["", "<p=g>", ""], "expected element type <f> but have <p>"),
        (["", "<f=g>", "\x01", "</f>", ""], r"XML syntax error on line 1: illegal character code U\+0001"),
    ],
)
def test_errors_have_go_s_words(parts: list[str], error: str) -> None:
    with pytest.raises(ValueError, match=f"^{error}$"):
        read(parts, "f")
