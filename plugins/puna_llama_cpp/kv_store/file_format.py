"""The file of one stored sequence: its tokens and its state, protected against damage and, with a secret, encrypted.

    magic, 8 bytes
    length of the header, 4 bytes, little endian
    header, JSON
    tokens, 32-bit little endian
    state, in llama.cpp's own format
    SHA-256 of all bytes before it, in a file that is not encrypted

In an encrypted file the tokens are one block, and the state is divided into blocks of BLOCK_BYTES. Each block is sealed
with AES-256-GCM. The key of a file is derived from the secret and from random bytes in the header, so a block's number
can serve as its nonce. The header is authenticated with every block.

The header names the partition that the file belongs to, so that a file under a wrong folder is not taken for another
model's. A reader checks everything before it returns the state. Tokens are readable without the state, for the index.
"""

import hashlib
import json
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from io import FileIO
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

State = NDArray[np.uint8]
_MAGIC: Final = b"PUNAKV1\n"
_LENGTH: Final = struct.Struct("<I")
BLOCK_BYTES: Final = 4 << 20
"""Bytes of the state that are read, written and sealed at once."""
_TAG_BYTES: Final = 16
_DIGEST_BYTES: Final = 32
_MAX_HEADER_BYTES: Final = 4096
_TOKEN: Final = np.dtype("<i4")


class DamagedFileError(Exception):
    """The file is no stored sequence of its partition, was cut or changed, or was sealed with another secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The facts of a stored sequence that are not secret."""

    partition: str
    token_count: int
    state_bytes: int
    prefill_token_seconds: float
    """Seconds that the evaluation of one prompt token took when the sequence was stored; 0: unknown."""
    salt: str = ""
    """Random bytes in hexadecimal from which the file's key is derived; empty: the file is not encrypted."""


class Secret:
    """A secret text, and the keys that are derived from it."""

    def __init__(self, text: str) -> None:
        """Derive the master key. Takes a twentieth of a second, so that weak secrets are slow to guess."""
        self._key = hashlib.scrypt(text.encode(), salt=b"puna kv cache", n=1 << 14, r=8, p=1, dklen=32)

    def digest(self, data: bytes) -> bytes:
        """Return a keyed digest, by which names of files reveal nothing."""
        return hashlib.blake2b(data, key=self._key, digest_size=16).digest()

    def cipher(self, salt: str) -> "AESGCM":
        """Return the cipher of a file."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(hashlib.blake2b(bytes.fromhex(salt), key=self._key, digest_size=32).digest())


def new_header(
    partition: str, token_count: int, state_bytes: int, prefill_token_seconds: float, *, encrypted: bool
) -> Header:
    """Return the header of a new file."""
    return Header(
        partition=partition,
        token_count=token_count,
        state_bytes=state_bytes,
        prefill_token_seconds=prefill_token_seconds,
        salt=secrets.token_hex(16) if encrypted else "",
    )


def file_bytes(header: Header) -> int:
    """Return the size of the file."""
    return len(_preamble(header)) + _token_bytes(header) + sum(map(_sealed(header), _blocks(header))) + _trailer(header)


def write(
    file: BinaryIO,
    header: Header,
    tokens: NDArray[np.int32],
    state: State,
    secret: Secret | None,
    check: Callable[[], None],
) -> None:
    """Write a file. `check` is called before each block, and may raise to give up."""
    preamble = _preamble(header)
    cipher = secret.cipher(header.salt) if secret is not None else None
    digest = hashlib.sha256(preamble)
    file.write(preamble)
    blocks = [tokens.astype(_TOKEN).view(np.uint8), *np.split(state, range(BLOCK_BYTES, len(state), BLOCK_BYTES))]
    for number, block in enumerate(blocks):
        check()
        data = block.data
        if cipher is not None:
            file.write(cipher.encrypt(_nonce(number), data, preamble))
        else:
            digest.update(data)
            file.write(data)
    if cipher is None:
        file.write(digest.digest())


def read_tokens(file: FileIO, partition: str, secret: Secret | None) -> tuple[Header, NDArray[np.int32]]:
    """Read the header and the tokens. The file must be at its beginning, and is left behind the tokens.

    Raises DamagedFileError. The tokens of a file that is not encrypted are checked only by `read_state`.
    """
    header, preamble = _read_header(file, partition, encrypted=secret is not None)
    if os.fstat(file.fileno()).st_size != file_bytes(header):
        raise DamagedFileError("its size is wrong")
    data = _read(file, _token_bytes(header))
    if secret is not None:
        data = _opened(secret.cipher(header.salt), 0, data, preamble)
    return header, np.frombuffer(data, _TOKEN).astype(np.int32)


def read_state(
    file: FileIO, partition: str, tokens: NDArray[np.int32], secret: Secret | None, check: Callable[[], None]
) -> State:
    """Read and check a whole file, and return the state. Raises DamagedFileError, also if it has other tokens.

    `check` is called before each block, and may raise to give up.
    """
    file.seek(0)
    header, found = read_tokens(file, partition, secret)
    if not np.array_equal(found, tokens):
        raise DamagedFileError("its tokens have changed")
    preamble = _preamble(header)
    cipher = secret.cipher(header.salt) if secret is not None else None
    digest = hashlib.sha256(preamble + found.astype(_TOKEN).tobytes())
    state = np.empty(header.state_bytes, np.uint8)
    start = 0
    for number, size in enumerate(_blocks(header), 1):
        check()
        target = state[start : start + size]
        if cipher is not None:
            target[:] = np.frombuffer(_opened(cipher, number, _read(file, size + _TAG_BYTES), preamble), np.uint8)
        else:
            if file.readinto(target.data) != size:
                raise DamagedFileError("it was cut")
            digest.update(target.data)
        start += size
    if cipher is None and _read(file, _DIGEST_BYTES) != digest.digest():
        raise DamagedFileError("its checksum is wrong")
    return state


def _preamble(header: Header) -> bytes:
    text = json.dumps(asdict(header), sort_keys=True).encode()
    return _MAGIC + _LENGTH.pack(len(text)) + text


def _read_header(file: FileIO, partition: str, *, encrypted: bool) -> tuple[Header, bytes]:
    start = _read(file, len(_MAGIC) + _LENGTH.size)
    length = int(_LENGTH.unpack(start[len(_MAGIC) :])[0])
    if not start.startswith(_MAGIC) or length > _MAX_HEADER_BYTES:
        raise DamagedFileError("it is no stored sequence")
    try:
        header = _checked(json.loads(_read(file, length)))
    # TypeError: a field is missing, or there is one too many.
    except (ValueError, TypeError) as error:
        raise DamagedFileError("its header is wrong") from error
    if header.partition != partition or bool(header.salt) is not encrypted:
        raise DamagedFileError("it belongs elsewhere")
    preamble = _preamble(header)
    if len(preamble) != len(start) + length:
        raise DamagedFileError("its header is wrong")
    return header, preamble


def _checked(values: dict[str, Any]) -> Header:
    header = Header(**values)
    counts = (header.token_count, header.state_bytes)
    if not all(type(each) is int and each > 0 for each in counts) or type(header.prefill_token_seconds) is not float:
        raise ValueError("a number is wrong")
    bytes.fromhex(header.salt)
    return header


def _token_bytes(header: Header) -> int:
    return _sealed(header)(header.token_count * _TOKEN.itemsize)


def _trailer(header: Header) -> int:
    return 0 if header.salt else _DIGEST_BYTES


def _sealed(header: Header) -> Callable[[int], int]:
    tag = _TAG_BYTES if header.salt else 0
    return lambda size: size + tag


def _blocks(header: Header) -> Iterator[int]:
    """Yield the bytes of each block of the state."""
    for start in range(0, header.state_bytes, BLOCK_BYTES):
        yield min(BLOCK_BYTES, header.state_bytes - start)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "little")


def _opened(cipher: "AESGCM", number: int, data: bytes, preamble: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(_nonce(number), data, preamble)
    except InvalidTag:
        raise DamagedFileError("a block was changed, or sealed with another secret") from None


def _read(file: FileIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise DamagedFileError("it was cut")
    return data
