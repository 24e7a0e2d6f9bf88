"""Bodies of /v1/rerank."""

from typing import Final

from puna.go.json_scanner import Document, Node
from puna_rest.bodies.custom import OPTIONAL_BOOL
from puna_rest.gobody.decoder import unmarshal
from puna_rest.gobody.kinds import Custom, Int, Pointer, Slice, String, Struct

_DOCUMENT: Final = Struct("rerank.Document", {"text": String()})


def _text(document: Document, node: Node) -> object:
    """Decode a document, a text or an object with one, to the text."""
    if node.kind == "object":
        fields = unmarshal(document, node, _DOCUMENT)
        assert isinstance(fields, dict) or fields is _DOCUMENT.zero
        return dict(fields)["text"]
    return unmarshal(document, node, String())


RERANK: Final = Struct(
    "rerank.Request",
    {
        "model": String(),
        "query": String(),
        "documents": Slice(Custom("rerank.Document", _text)),
        "top_n": Pointer(Int()),
        "return_documents": OPTIONAL_BOOL,
    },
)
