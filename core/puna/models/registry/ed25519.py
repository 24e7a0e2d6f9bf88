"""Ed25519 signatures (RFC 8032), for the tokens of the reference's own registry.

Slow (some milliseconds) and not constant in time: good for signing a request now and then on one's own machine, where
a cryptography library would be the only compiled dependency of the core.
"""

import hashlib
from typing import Final, TypeAlias

_Point: TypeAlias = tuple[int, int, int, int]

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, _P - 2, _P) % _P
_BASE_Y: Final = 4 * pow(5, _P - 2, _P) % _P
_BASE_X: Final = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE: Final[_Point] = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)


def public_key(seed: bytes) -> bytes:
    """Return the 32 bytes of the public key that belongs to a seed of 32 bytes."""
    return _packed(_times(_secrets(seed)[0], _BASE))


def sign(seed: bytes, message: bytes) -> bytes:
    """Return the 64 bytes of a signature."""
    scalar, prefix = _secrets(seed)
    public = _packed(_times(scalar, _BASE))
    nonce = _number(hashlib.sha512(prefix + message)) % _ORDER
    commitment = _packed(_times(nonce, _BASE))
    challenge = _number(hashlib.sha512(commitment + public + message)) % _ORDER
    return commitment + ((nonce + challenge * scalar) % _ORDER).to_bytes(32, "little")


def _secrets(seed: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    return (scalar & ((1 << 254) - 8)) | (1 << 254), digest[32:]


def _number(digest: "hashlib._Hash") -> int:
    return int.from_bytes(digest.digest(), "little")


def _times(scalar: int, point: _Point) -> _Point:
    out: _Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            out = _sum(out, point)
        point = _sum(point, point)
        scalar >>= 1
    return out


def _sum(left: _Point, right: _Point) -> _Point:
    a = (left[1] - left[0]) * (right[1] - right[0]) % _P
    b = (left[1] + left[0]) * (right[1] + right[0]) % _P
    c = 2 * left[3] * right[3] * _D % _P
    d = 2 * left[2] * right[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _packed(point: _Point) -> bytes:
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")
