"""The expected texts are what Ollama answered to the same bodies."""

import struct

import pytest

from puna_rest.zstd import LONGEST, PackedBodyError, unpack, zstd

TEXT = b'{"model": "m"}'
MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPED = b"\x5f\x2a\x4d\x18\x04\0\0\0abcd"
CHECKED = zstd.compress(TEXT, options={zstd.CompressionParameter.checksum_flag: True})
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
        (zstd.compress(TEXT), TEXT),
        (CHECKED, TEXT),
        (frame(raw(TEXT)), TEXT),
        (frame(raw(TEXT), 0x20, bytes([len(TEXT)])), TEXT),
        (frame(raw(b"a" * 300), 0x60, struct.pack("<H", 300 - 256)), b"a" * 300),
        (frame(raw(TEXT), 1, b"\x68\0"), TEXT),  # the dictionary with id 0 is no dictionary
        (SKIPPED + frame(raw(TEXT[:5])) + SKIPPED + zstd.compress(TEXT[5:]), TEXT),
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
        (CHECKED[:-1] + b"\0", "CRC check failed"),
        (frame(raw(TEXT), 1, b"\x68\x05"), "unknown dictionary"),
        (frame(raw(TEXT), 8), "reserved bit set on frame header"),
        (frame(raw(TEXT), head=b"\x69"), "window size exceeded"),
        (frame(raw(TEXT), head=b"\xff"), "window size exceeded"),
        (frame(raw(TEXT)[:2] + b"\xff" + TEXT), "invalid input: Data corruption detected"),
        (single((1 << 23) + 1, spaces((1 << 23) + 1)), "decompressed size exceeds configured limit"),
        (frame(spaces(LONGEST) + raw(b"x")), "http: request body too large"),
        (frame(spaces(1 << 31)), "http: request body too large"),
    ],
)
def test_refused(body, text):
    with pytest.raises(PackedBodyError) as caught:
        unpack(body)
    assert str(caught.value) == text


def test_frames_are_counted_but_for_skippable_ones():
    """Making a decompressor takes far longer than reading a small frame, and a body can have millions of them."""
    body = (SKIPPED + frame(raw(b"a"))) * 1000
    assert unpack(body, most_frames=1000) == b"a" * 1000
    with pytest.raises(PackedBodyError, match="the body has more than 999 zstd frames"):
        unpack(body, most_frames=999)
