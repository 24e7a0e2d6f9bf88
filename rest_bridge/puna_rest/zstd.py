"""Unpacks request bodies compressed with zstd, within Ollama's limits and with Ollama's error texts.

A body is a sequence of frames (RFC 8878). The window size, the dictionary and the reserved bit are read from each
frame's header before the decompressor sees the frame, because each has an error text of its own.
"""

import struct
import sys
from collections.abc import Mapping
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LONGEST: Final = 20 * 1024 * 1024
"""Bytes that a body may have when unpacked."""
WIDEST: Final = 8 * 1024 * 1024
"""Largest window of a frame, in bytes: how far back a match may refer."""
_OPTIONS: Final[Mapping[int, int]] = {zstd.DecompressionParameter.window_log_max: WIDEST.bit_length() - 1}
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x2a\x4d\x18"
"""Last three bytes of the magic number of a skippable frame; the first byte is 0x50 to 0x5f."""
_SKIPPABLE_HEADER: Final = struct.Struct("<4xI")
_SINGLE_SEGMENT: Final = 0x20
_RESERVED: Final = 0x08
_DICTIONARY_BYTES: Final = (0, 1, 2, 4)
"""Size of the dictionary id, by the lowest two bits of the frame header descriptor."""
_CONTENT_SIZE_BYTES: Final = (0, 2, 4, 8)
"""Size of the content size, by the highest two bits. Value 0 means one byte in a frame with a single segment."""
_SLICE: Final = 512
"""Bytes of input per call. The decompressor returns what follows a frame as a copy, which stays small this way."""
_CUT: Final = "unexpected EOF"


class PackedBodyError(ValueError):
    """A body that cannot be unpacked; the text is for the client."""


def unpack(body: bytes, most: int = LONGEST, most_frames: int = 0) -> bytes:
    """Unpack the frames of a body.

    Args:
        body: the packed body.
        most: bytes that the result may have.
        most_frames: frames with content that the body may have; 0 means any number. A frame of nine bytes costs as much
            time as making a decompressor, 20 microseconds.

    Raises:
        PackedBodyError: the body is damaged, cut, or exceeds a limit.
    """
    rest = memoryview(body)
    out = bytearray()
    frames = 0
    while rest:
        kind = bytes(rest[:4])
        if len(kind) < len(_MAGIC):
            raise PackedBodyError(_CUT)
        if kind[1:] == _SKIPPABLE and kind[0] >> 4 == 5:
            rest = _after_skippable(rest)
        elif kind == _MAGIC:
            frames += 1
            if most_frames and frames > most_frames:
                raise PackedBodyError(f"the body has more than {most_frames} zstd frames")
            _check_header(bytes(rest[len(_MAGIC) : 32]))
            rest = _unpack_frame(rest, out, most)
        else:
            raise PackedBodyError("invalid input: magic number mismatch")
    return bytes(out)


def _after_skippable(rest: memoryview) -> memoryview:
    if len(rest) < _SKIPPABLE_HEADER.size:
        raise PackedBodyError(_CUT)
    end = _SKIPPABLE_HEADER.size + _SKIPPABLE_HEADER.unpack_from(rest)[0]
    if len(rest) < end:
        raise PackedBodyError(_CUT)
    return rest[end:]


def _check_header(header: bytes) -> None:
    """Check a frame header, which begins with its descriptor byte. Raises PackedBodyError."""
    if not header:
        raise PackedBodyError(_CUT)
    descriptor = header[0]
    if descriptor & _RESERVED:
        raise PackedBodyError("reserved bit set on frame header")
    single = bool(descriptor & _SINGLE_SEGMENT)
    content_size_bytes = _CONTENT_SIZE_BYTES[descriptor >> 6] or single
    dictionary_at = 1 if single else 2
    content_size_at = dictionary_at + _DICTIONARY_BYTES[descriptor & 3]
    end = content_size_at + content_size_bytes
    if len(header) < end:
        raise PackedBodyError(_CUT)
    if any(header[dictionary_at:content_size_at]):
        raise PackedBodyError("unknown dictionary")
    if single:
        content_size = int.from_bytes(header[content_size_at:end], "little") + (256 if content_size_bytes == 2 else 0)
        if content_size > WIDEST:
            raise PackedBodyError("decompressed size exceeds configured limit")
    elif _window_bytes(header[1]) > WIDEST:
        raise PackedBodyError("window size exceeded")


def _window_bytes(window_descriptor: int) -> int:
    base = 1 << (10 + (window_descriptor >> 3))
    return base + base // 8 * (window_descriptor & 7)


def _unpack_frame(rest: memoryview, out: bytearray, most: int) -> memoryview:
    """Append a frame's content to `out`; return what follows the frame."""
    frame = zstd.ZstdDecompressor(options=_OPTIONS)
    for start in range(0, len(rest), _SLICE):
        try:
            out += frame.decompress(rest[start : start + _SLICE], most + 1 - len(out))
        except zstd.ZstdError as error:
            raise PackedBodyError(_error_text(str(error))) from None
        if len(out) > most:
            raise PackedBodyError("http: request body too large")
        if frame.eof:
            return rest[min(len(rest), start + _SLICE) - len(frame.unused_data) :]
    raise PackedBodyError(_CUT)


def _error_text(text: str) -> str:
    """Translate an error of the library, which puts a sentence of its own before that of libzstd."""
    return "CRC check failed" if "checksum" in text else f"invalid input: {text.rpartition(': ')[2]}"
