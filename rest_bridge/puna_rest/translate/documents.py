"""Documents in messages. Text is passed to the model; other content is refused, with its type in the error."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from puna.go import json as gojson
from puna_rest.errors import RestError

_BASE64: Final = ";base64"


def refuse_block(kind: object) -> RestError:
    """Return the error for a content block of an unsupported type."""
    return RestError(400, f"content block type {gojson.quote(str(kind))} is not supported")


def document_text(block: Mapping[str, Any]) -> str:
    """Return the text of a document block of Anthropic's API, after its title and context. Raises RestError."""
    source = block.get("source")
    source = source if isinstance(source, Mapping) else {}
    kind = source.get("type")
    if kind == "text" and isinstance(source.get("data"), str):
        text = source["data"]
    elif kind == "content":
        text = texts(source.get("content"))
    else:
        media = f" ({source['media_type']})" if source.get("media_type") else ""
        name = gojson.quote(str(kind or ""))
        raise RestError(400, f"document source type {name}{media} is not supported: send the document's text")
    return "\n".join([*_strings(block.get("title"), block.get("context")), text])


def search_result_text(block: Mapping[str, Any]) -> str:
    """Return the title, the source and the text of a search_result block. Raises RestError."""
    return "\n".join([*_strings(block.get("title"), block.get("source")), texts(block.get("content"))])


def texts(content: object) -> str:
    """Return the text of a string or of a list of text blocks. RestError: the list has another block."""
    if isinstance(content, str):
        return content
    out = ""
    for each in content if isinstance(content, list) else ():
        kind = each.get("type") if isinstance(each, dict) else ""
        if kind != "text" or not isinstance(each.get("text"), str):
            raise refuse_block(kind)
        out += each["text"]
    return out


def file_text(file_data: str) -> str | None:
    """Return the text of a data URL with a text/* type in UTF-8, or None for another kind of file."""
    head, _, data = file_data.partition(",")
    if not (head.startswith("data:text/") and head.endswith(_BASE64)):
        return None
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _strings(*values: object) -> list[str]:
    return [value for value in values if isinstance(value, str) and value]
