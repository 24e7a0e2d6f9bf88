"""Large requests of gRPC clients: counted, then parsed, both beside the event loop.

gRPC parses a request on the event loop, in one call into native code. A message of two bytes takes a hundred in memory,
so a few megabytes can become gigabytes and take seconds. Requests above a size are kept as bytes. Their elements are
counted in a thread, without being made; only a request with few enough is parsed.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor

from puna.errors import InvalidRequestError
from puna.offload import check_cancelled, offload_if_heavy

SMALL: Final = 16 << 10
"""Bytes of a request that the event loop parses by itself."""
IN_STREAM: Final = 20_000
"""Elements of a message of a client's stream, which the event loop parses by itself: honest ones have a few."""
_EVERY: Final = 4096


def begin(parse: Callable[[bytes], Any], data: bytes) -> Any:  # noqa: ANN401 - a message of any type, or bytes
    """Parse a small request; return a large one as it is."""
    return data if len(data) > SMALL else parse(data)


async def finish(kind: Any, parse: Callable[[bytes], Any], request: Any, most: int) -> Any:  # noqa: ANN401 - any type
    """Return what `begin` returned as a message. InvalidRequestError: it has more than `most` elements."""
    if not isinstance(request, bytes):
        return request
    return await offload_if_heavy(len(request) // 32, checked, kind, parse, request, most)


def checked(kind: Any, parse: Callable[[bytes], Any], data: bytes, most: int) -> Any:  # noqa: ANN401 - any type
    """Parse a message of at most `most` elements, or raise InvalidRequestError."""
    if len(data) > SMALL and count(data, kind.DESCRIPTOR, most) > most:
        raise InvalidRequestError(f"a message may have at most {most} elements")
    return parse(data)


def count(data: bytes, descriptor: Descriptor, most: int) -> int:
    """Return how many fields a message has in it, those of inner messages included, or more than `most`.

    Packed numbers count as one. Bytes that are no message are left for the parser to refuse.
    """
    found = 0
    inner: dict[str, dict[int, Descriptor]] = {}
    waiting = [(descriptor, 0, len(data))]
    while waiting and found <= most:
        kind, at, end = waiting.pop()
        fields = inner.setdefault(
            kind.full_name, {each.number: each.message_type for each in kind.fields if each.message_type}
        )
        while at < end and found <= most:
            found += 1
            if found % _EVERY == 0:
                check_cancelled()
            tag, at = _varint(data, at)
            form = tag & 7
            if form == 0:
                _, at = _varint(data, at)
            elif form == 1:
                at += 8
            elif form == 5:
                at += 4
            elif form == 2:
                length, at = _varint(data, at)
                if tag >> 3 in fields:
                    waiting.append((fields[tag >> 3], at, min(at + length, end)))
                at += length
            else:
                return found
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            return value, len(data)
    return value, at
