"""Errors of registries and of the network, in Ollama's words, since clients match the texts."""

import errno
import os
import socket
import ssl
from pathlib import Path
from typing import Final

from puna.errors import TransferError
from puna.go.json import quote

_LONGEST: Final = 300
"""Characters of a peer's text that an error repeats."""


class RegistryError(TransferError):
    """A registry refused, or could not be reached."""

    def __init__(self, text: str, *, status: int = 0, wait: float = 0.0) -> None:
        """`status` is the HTTP status, 0 if there was no answer. `wait` is the delay in seconds that the registry
        asks for."""
        super().__init__(text)
        self.status = status
        self.wait = wait

    @property
    def is_passing(self) -> bool:
        """Whether a retry may help."""
        # 0: there was no answer at all, for instance because the connection broke.
        return self.status in (0, 408, 425, 429) or self.status >= 500


class MissingError(RegistryError):
    """The registry does not have the manifest or blob."""

    def __init__(self) -> None:
        super().__init__("file does not exist", status=404)


class RemoteModelNotFoundError(TransferError):
    """The registry has no model of this name."""

    reason = "REMOTE_MODEL_NOT_FOUND"


class RegistryUnauthorizedError(TransferError):
    """The registry wants other credentials than this server has."""

    reason = "REGISTRY_UNAUTHORIZED"


class UnauthorizedError(RegistryError, RegistryUnauthorizedError):
    """The registry wants credentials, and there are none or it refused them."""

    def __init__(self) -> None:
        super().__init__("unauthorized: access denied", status=401)


class StalledError(RegistryError):
    """No byte was received or sent for too long."""

    def __init__(self) -> None:
        super().__init__("the transfer stalled")


class ReferralError(RegistryError):
    """A registry refers to an address that it may not send this server to. A retry does not help."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"the registry refers to {quote(shown_url(url))}: it {why}")

    @property
    def is_passing(self) -> bool:
        """False: a retry never helps."""
        return False


def one_line(text: str) -> str:
    """Return a peer's text as one line of bounded length without control characters."""
    # Control characters of an untrusted text could rewrite a terminal. The cut comes first: a long text costs nothing.
    words = "".join(char if char.isprintable() else " " for char in text[: 4 * _LONGEST]).split()
    line = " ".join(words)
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


def shown_url(url: str) -> str:
    """Return an address as errors show it. The query may be a signature, which is a secret."""
    path, mark, _ = url.partition("?")
    return one_line(path) + ("?…" if mark else "")


def of_system(error: OSError, operation: str, path: Path) -> TransferError:
    """Return the error of a disk operation in Go's words: write /path: no space left on device."""
    return TransferError(f"{operation} {path}: {system_text(error)}")


def system_text(error: OSError) -> str:
    """Return the system's error text as Go writes it, without a capital letter."""
    text = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    return text[:1].lower() + text[1:]


def connecting_text(error: OSError, host: str, port: int | None) -> str:
    """Return why a connection failed, in the words of Go's net package."""
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            return "http: server gave HTTP response to HTTPS client"
        return f"tls: {(error.reason or 'handshake failure').lower().replace('_', ' ')}"
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno in (errno.ETIMEDOUT, None):
        return f"dial tcp {address}: i/o timeout"
    return f"dial tcp {address}: connect: {os.strerror(error.errno).lower()}"
