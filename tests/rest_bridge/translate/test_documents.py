import base64

import pytest

from puna_rest.errors import RestError
from puna_rest.translate import documents


def url(text, kind="text/plain"):
    data = text if isinstance(text, bytes) else text.encode()
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"source": {"type": "text", "data": "body"}}, "body"),
        ({"title": "T", "context": "C", "source": {"type": "text", "data": "body"}}, "T\nC\nbody"),
        ({"title": "", "context": 3, "source": {"type": "text", "data": "body"}}, "body"),
        ({"source": {"type": "content", "content": "body"}}, "body"),
        (
            {"source": {"type": "content", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}},
            "ab",
        ),
    ],
)
def test_documents_of_text(block, text):
    assert documents.document_text(block) == text


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"type": "base64", "media_type": "application/pdf"}, '"base64" (application/pdf)'),
        ({"type": "url"}, '"url"'),
        ({"type": "text"}, '"text"'),
        (None, '""'),
        ("text", '""'),
    ],
)
def test_other_documents_are_refused_with_their_type(source, named):
    with pytest.raises(RestError) as caught:
        documents.document_text({"source": source})
    assert str(caught.value) == f"document source type {named} is not supported: send the document's text"


def test_an_image_inside_a_document_is_refused():
    with pytest.raises(RestError, match=r'^content block type "image" is not supported$'):
        documents.texts([{"type": "text", "text": "a"}, {"type": "image"}])
    with pytest.raises(RestError, match=r'^content block type "" is not supported$'):
        documents.texts(["bare"])
    assert documents.texts(None) == ""


def test_a_search_result_has_its_title_and_source():
    block = {"title": "T", "source": "http://a", "content": [{"type": "text", "text": "body"}]}
    assert documents.search_result_text(block) == "T\nhttp://a\nbody"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (url("é"), "é"),
        (url("# a", "text/markdown"), "# a"),
        (url("x", "application/pdf"), None),
        (url(b"\xff"), None),
        ("data:text/plain,bare", None),
        ("data:text/plain;base64,???", None),
        ("", None),
    ],
)
def test_files_of_text(data, text):
    assert documents.file_text(data) == text
