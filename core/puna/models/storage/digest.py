"""Digests of blobs, "sha256:" and 64 hexadecimal digits, and the file names made of them."""

import re
from typing import Final

from puna.errors import InvalidDigestError

_DIGEST: Final = re.compile(r"sha256[:-]([0-9a-fA-F]{64})", re.ASCII)


def file_name(digest: str) -> str:
    """Return the blob's file name, "sha256-<hex>"; the digits keep their case. Raises InvalidDigestError."""
    # The digits become part of a path, so nothing but digits may pass.
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidDigestError
    return f"sha256-{match[1]}"


def plain(digest: str) -> str:
    """Return a digest in its usual form, with a colon. Raises InvalidDigestError."""
    return file_name(digest).replace("-", ":", 1)


def is_digest(text: str) -> bool:
    """Return whether `text` is a digest, with either separator."""
    return _DIGEST.fullmatch(text) is not None
