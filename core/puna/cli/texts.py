"""Texts that come from outside in another encoding."""


def readable(text: str) -> str:
    """Return text without the surrogates that stand for bytes of another encoding; each becomes U+FFFD."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
