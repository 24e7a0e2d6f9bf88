"""Texts from outside that may have another encoding."""


def readable(text: str) -> str:
    """Return a text with U+FFFD for each surrogate, which stands for a byte of another encoding."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
