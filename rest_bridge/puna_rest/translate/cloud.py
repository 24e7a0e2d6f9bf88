"""Names of models that Ollama runs in its cloud."""

from typing import Final

from puna.go.json_scanner import Document, Node

REFUSED: Final = "ollama cloud is disabled: remote model is unavailable"
DETAILS_REFUSED: Final = "ollama cloud is disabled: remote model details are unavailable"


def names_cloud(name: str) -> bool:
    """Return whether a name asks for a cloud's model. A name with contradictory suffixes does not."""
    base, colon, tag = name.strip().rpartition(":")
    tag = tag.strip().lower()
    if not colon or not base:
        return False
    if tag == "cloud":
        inner = base.rpartition(":")
        tail = inner[2].strip().lower() if inner[1] else ""
        return tail not in ("cloud", "local") and not (tail.endswith("-cloud") and "/" not in tail)
    return tag.endswith("-cloud") and "/" not in tag


def names_cloud_model(document: Document) -> bool:
    """Return whether a body names a cloud's model."""
    if document.root.kind != "object":
        return False
    named: list[Node] = [value for key, value in document.root.value if key == "model"]
    return bool(named) and named[-1].kind == "string" and names_cloud(named[-1].value)
