"""The key by which Ollama's registry identifies a user: ~/.ollama/id_ed25519, in OpenSSH's format.

Ollama and Puna share the file. The first of them that needs it creates it. A token server gets a signature of the
request's own text (`challenge.signed_text`) and the public key in one header, and looks the key up among its users.

The library `cryptography` reads, writes and signs. It is imported at the first use, since its import takes longer than
the rest of a start and few servers ever sign.
"""

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from puna import atomic_files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_BEGIN: Final = "-----BEGIN OPENSSH PRIVATE KEY-----"


class KeyFileError(Exception):
    """The file holds no key that can be used: it is of another kind, encrypted or damaged."""


@dataclass(frozen=True, slots=True)
class Key:
    """An Ed25519 key."""

    private: "Ed25519PrivateKey" = field(repr=False)

    @property
    def public_line(self) -> str:
        """The key type and the public key in base64, as the .pub file has them."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    @property
    def public_text(self) -> str:
        """The public key in base64: the middle field of the .pub file."""
        return self.public_line.split(" ")[1]

    def authorization(self, message: bytes) -> str:
        """Return the header that signs `message`: the public key and the signature, both in base64."""
        return f"{self.public_text}:{base64.b64encode(self.private.sign(message)).decode()}"


def loads(text: str) -> Key:
    """Read a private key file. Raises KeyFileError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    if not text.strip().startswith(_BEGIN):
        raise KeyFileError("not an OpenSSH private key")
    try:
        private = load_ssh_private_key(text.strip().encode(), None)
    except TypeError:
        raise KeyFileError("the key is behind a passphrase") from None
    except UnsupportedAlgorithm as error:
        raise KeyFileError(f"the key cannot be used: {error}") from None
    except (ValueError, binascii.Error) as error:
        raise KeyFileError("the key file is damaged") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError("not an Ed25519 key")
    return Key(private)


def dumps(key: Key) -> str:
    """Write a private key file without a passphrase, since the server reads it unattended."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def load_or_make(path: Path) -> Key:
    """Return the key of a file. A missing file is made, with its .pub beside it. Raises KeyFileError and OSError."""
    try:
        return loads(path.read_text())
    except FileNotFoundError:
        pass
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Key(Ed25519PrivateKey.generate())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        # Of two processes one makes the key and the other reads it.
        atomic_files.create(path, dumps(key).encode())
    except FileExistsError:  # another process was faster
        return loads(path.read_text())
    atomic_files.write(path.with_suffix(".pub"), f"{key.public_line}\n".encode(), 0o644)
    return key
