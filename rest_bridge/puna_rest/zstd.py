"""Bodies that come packed with zstd, unpacked within the reference's limits and refused in its words."""

import struct
from typing import Final

import zstandard

LONGEST: Final = 20 * 1024 * 1024
"""Bytes that a body may have when unpacked."""
WIDEST: Final = 8 * 1024 * 1024
"""Bytes that a frame may ask its reader to look back on."""
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x2a\x4d\x18"
"""The last three bytes of the number that begins a frame without content; the first is 0x50 to 0x5f."""
_SKIPPED_HEAD: Final = struct.Struct("<4xI")
_SINGLE_SEGMENT: Final = 0x20
_RESERVED: Final = 0x08
_SLICE: Final = 512
"""Bytes unpacked at once: a block of four bytes may stand for 128 KiB."""
_CUT: Final = "unexpected EOF"


class PackedBodyError(ValueError):
    """A body that cannot be unpacked; the text is for the client."""


def unpack(body: bytes, most: int = LONGEST) -> bytes:
    """Unpack frames that follow each other, to at most so many bytes. Raises PackedBodyError."""
    rest = memoryview(body)
    out = bytearray()
    # One for all frames: a body can have millions of them, and making one takes longer than a small frame.
    reader = zstandard.ZstdDecompressor(max_window_size=WIDEST)
    while rest:
        kind = bytes(rest[:4])
        if len(kind) < len(_MAGIC):
            raise PackedBodyError(_CUT)
        if kind[1:] == _SKIPPABLE and kind[0] >> 4 == 5:
            rest = _after_skippable(rest)
        elif kind == _MAGIC:
            _check_head(bytes(rest[:32]))
            rest = _unpack_frame(reader, rest, out, most)
        else:
            raise PackedBodyError("invalid input: magic number mismatch")
    return bytes(out)


def _after_skippable(rest: memoryview) -> memoryview:
    if len(rest) < _SKIPPED_HEAD.size:
        raise PackedBodyError(_CUT)
    end = _SKIPPED_HEAD.size + _SKIPPED_HEAD.unpack_from(rest)[0]
    if len(rest) < end:
        raise PackedBodyError(_CUT)
    return rest[end:]


def _check_head(head: bytes) -> None:
    if len(head) > len(_MAGIC) and head[4] & _RESERVED:
        raise PackedBodyError("reserved bit set on frame header")
    try:
        frame = zstandard.get_frame_parameters(head)
    except zstandard.ZstdError:
        raise PackedBodyError(_CUT) from None
    if frame.dict_id:
        raise PackedBodyError("unknown dictionary")
    if frame.window_size > WIDEST:
        whole = head[4] & _SINGLE_SEGMENT
        raise PackedBodyError("decompressed size exceeds configured limit" if whole else "window size exceeded")


def _unpack_frame(reader: zstandard.ZstdDecompressor, rest: memoryview, out: bytearray, most: int) -> memoryview:
    """Append a frame's content; return what follows the frame."""
    frame = reader.decompressobj()
    for start in range(0, len(rest), _SLICE):
        try:
            out += frame.decompress(rest[start : start + _SLICE])
        except zstandard.ZstdError as error:
            raise PackedBodyError(_told(str(error))) from None
        if len(out) > most:
            raise PackedBodyError("http: request body too large")
        if frame.eof:
            return rest[min(len(rest), start + _SLICE) - len(frame.unused_data) :]
    raise PackedBodyError(_CUT)


def _told(text: str) -> str:
    return "CRC check failed" if "checksum" in text else f"invalid input: {text}"
