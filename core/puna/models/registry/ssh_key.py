"""The key that the reference's registry knows a user by: ~/.ollama/id_ed25519, in OpenSSH's format."""

import base64
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from puna.models.registry import ed25519

_MAGIC: Final = b"openssh-key-v1\0"
_KIND: Final = b"ssh-ed25519"
_BEGIN: Final = "-----BEGIN OPENSSH PRIVATE KEY-----"
_END: Final = "-----END OPENSSH PRIVATE KEY-----"


class KeyFileError(Exception):
    """The file holds no key that can be used: another kind, or one behind a passphrase."""


@dataclass(frozen=True, slots=True)
class Key:
    """An Ed25519 key."""

    seed: bytes = field(repr=False)
    public: bytes

    @property
    def public_text(self) -> str:
        """The middle field of the .pub file."""
        return base64.b64encode(_string(_KIND) + _string(self.public)).decode()

    def authorization(self, message: bytes) -> str:
        """Return the header that signs `message`: key and signature in base64."""
        return f"{self.public_text}:{base64.b64encode(ed25519.sign(self.seed, message)).decode()}"


def loads(text: str) -> Key:
    """Read a private key file. Raises KeyFileError."""
    lines = text.strip().splitlines()
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise KeyFileError("not an OpenSSH private key")
    try:
        data = base64.b64decode("".join(lines[1:-1]))
        if not data.startswith(_MAGIC):
            raise KeyFileError("not an OpenSSH private key")
        (cipher, _, _), rest = _strings(data[len(_MAGIC) :], 3)
        if cipher != b"none":
            raise KeyFileError("the key is behind a passphrase")
        (_, secret), _ = _strings(rest[4:], 2)
        (kind, public, pair), _ = _strings(secret[8:], 3)
    except (ValueError, struct.error) as error:
        raise KeyFileError("the key file is damaged") from error
    if kind != _KIND or len(pair) != 64 or pair[32:] != public:
        raise KeyFileError("not an Ed25519 key")
    return Key(pair[:32], public)


def dumps(key: Key, check: bytes) -> str:
    """Write a private key file; `check` is four random bytes."""
    public = _string(_KIND) + _string(key.public)
    secret = check * 2 + public + _string(key.seed + key.public) + _string(b"")
    secret += bytes(range(1, 1 + -len(secret) % 8))
    nothing = _string(b"none") * 2 + _string(b"")
    data = base64.b64encode(_MAGIC + nothing + struct.pack(">I", 1) + _string(public) + _string(secret)).decode()
    return "\n".join([_BEGIN, *(data[at : at + 70] for at in range(0, len(data), 70)), _END, ""])


def load_or_make(path: Path) -> Key:
    """Return the key of a file, which is made if it is missing, with its .pub beside it. KeyFileError, OSError."""
    try:
        return loads(path.read_text())
    except FileNotFoundError:
        seed = os.urandom(32)
        key = Key(seed, ed25519.public_key(seed))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process was faster
        return loads(path.read_text())
    with open(descriptor, "w") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(dumps(key, os.urandom(4)))
    path.with_suffix(".pub").write_text(f"{_KIND.decode()} {key.public_text}\n")
    return key


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes, count: int) -> tuple[list[bytes], bytes]:
    found = []
    for _ in range(count):
        (length,) = struct.unpack_from(">I", data)
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found, data
