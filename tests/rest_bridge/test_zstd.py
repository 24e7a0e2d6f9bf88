"""What the reference answered to the same bodies."""

import struct

import pytest
import zstandard

from puna_rest.zstd import LONGEST, PackedBodyError, unpack

TEXT = b'{"model": "m"}'
MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPED = b"\x5f\x2a\x4d\x18\x04\0\0\0abcd"
UNKNOWN = "invalid input: magic number mismatch"


def raw(content: bytes, last: int = 1) -> bytes:
    return struct.pack("<I", len(content) << 3 | last)[:3] + content


def spaces(count: int) -> bytes:
    """Blocks of one repeated character, four bytes each."""
    return b"".join(struct.pack("<I", min(1 << 17, count - at) << 3 | 2)[:3] + b" " for at in range(0, count, 1 << 17))


def frame(content: bytes, descriptor: int = 0, head: bytes = b"\x68") -> bytes:
    return MAGIC + bytes([descriptor]) + head + content


def single(size: int, content: bytes) -> bytes:
    return frame(content, 0xA0, struct.pack("<I", size))


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"", b""),
        (SKIPPED, b""),
        (zstandard.compress(TEXT), TEXT),
        (zstandard.ZstdCompressor(write_checksum=True).compress(TEXT), TEXT),
        (frame(raw(TEXT)), TEXT),
        (SKIPPED + frame(raw(TEXT[:5])) + SKIPPED + zstandard.compress(TEXT[5:]), TEXT),
        (frame(spaces(LONGEST - len(TEXT)) + raw(TEXT)), b" " * (LONGEST - len(TEXT)) + TEXT),
        (single(1 << 23, spaces((1 << 23) - len(TEXT)) + raw(TEXT)), b" " * ((1 << 23) - len(TEXT)) + TEXT),
    ],
)
def test_unpacked(body, content):
    assert unpack(body) == content


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (TEXT, UNKNOWN),
        (frame(raw(TEXT)) + b"junk", UNKNOWN),
        (b"abc", "unexpected EOF"),
        (MAGIC, "unexpected EOF"),
        (MAGIC + b"\0", "unexpected EOF"),
        (frame(raw(TEXT))[:-1], "unexpected EOF"),
        (frame(raw(TEXT, last=0)), "unexpected EOF"),
        (frame(raw(TEXT)) + b"abc", "unexpected EOF"),
        (SKIPPED[:-1], "unexpected EOF"),
        (SKIPPED[:6], "unexpected EOF"),
        (zstandard.ZstdCompressor(write_checksum=True).compress(TEXT)[:-1] + b"\0", "CRC check failed"),
        (frame(raw(TEXT), 1, b"\x68\x05"), "unknown dictionary"),
        (frame(raw(TEXT), 8), "reserved bit set on frame header"),
        (frame(raw(TEXT), head=b"\x69"), "window size exceeded"),
        (single((1 << 23) + 1, spaces((1 << 23) + 1)), "decompressed size exceeds configured limit"),
        (frame(spaces(LONGEST) + raw(b"x")), "http: request body too large"),
        (frame(spaces(1 << 31)), "http: request body too large"),
    ],
)
def test_refused(body, text):
    with pytest.raises(PackedBodyError) as caught:
        unpack(body)
    assert str(caught.value) == text


def test_many_frames_share_a_decompressor(monkeypatch):
    """A body can have millions of small frames. Making a decompressor takes far longer than reading one."""
    made, kind = [], zstandard.ZstdDecompressor
    monkeypatch.setattr(zstandard, "ZstdDecompressor", lambda **how: made.append(how) or kind(**how))
    assert unpack(frame(raw(b"a")) * 1000) == b"a" * 1000
    assert len(made) == 1
