"""Bounds on what arrives, however it is cut into pieces."""

import httpx2
import pytest

from puna_openai.bounds import BoundedStream, TooLargeError


class Pieces(httpx2.AsyncByteStream):
    def __init__(self, *pieces):
        self.pieces = pieces

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece


async def read(*pieces, by_event):
    return [piece async for piece in BoundedStream(Pieces(*pieces), most=8, by_event=by_event)]


@pytest.mark.parametrize(
    "pieces", [[b"data: 1\n"] * 50, [b"1234", b"5678\n", b"12345678"], [b"a\nb\nc\nd\ne\nf\ng\nh\n", b"12345678"], []]
)
async def test_lines_within_the_bound_pass(pieces):
    assert await read(*pieces, by_event=True) == pieces


@pytest.mark.parametrize("pieces", [[b"123456789"], [b"1234", b"56789"], [b"1\n2345", b"6789", b"0"]])
async def test_a_line_without_an_end_is_cut_off(pieces):
    with pytest.raises(TooLargeError, match="more than 8 bytes"):
        await read(*pieces, by_event=True)


async def test_a_body_is_bounded_as_a_whole():
    assert await read(b"1234\n", b"678", by_event=False) == [b"1234\n", b"678"]
    with pytest.raises(TooLargeError):
        await read(b"1234\n", b"6789", by_event=False)
