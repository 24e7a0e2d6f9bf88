"""Models that are named as a cloud's."""

from typing import Final

from puna.go.json_scanner import Document, Node

REFUSED: Final = "ollama cloud is disabled: remote model is unavailable"
DETAILS_REFUSED: Final = "ollama cloud is disabled: remote model details are unavailable"


def names_cloud(name: str) -> bool:
    """Tell whether a name asks for a model in the cloud; one that contradicts itself does not."""
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
    """Tell whether a body asks for such a model."""
    if document.root.kind != "object":
        return False
    named: list[Node] = [value for key, value in document.root.value if key == "model"]
    return bool(named) and named[-1].kind == "string" and names_cloud(named[-1].value)
