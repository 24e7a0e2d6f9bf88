"""Parsing of large requests in a thread, after their elements are counted.

gRPC parses a request on the event loop, in one call into native code. An element of two bytes takes a hundred bytes in
memory, so a few megabytes can become gigabytes and take seconds. Requests above a size are therefore kept as bytes. A
thread walks over their wire format and counts the elements without creating them. Only a request with few enough
elements is parsed.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor

from puna.errors import InvalidRequestError
from puna.offload import check_cancelled, offload_if_heavy

SMALL: Final = 16 << 10
"""Bytes up to which a request is parsed on the event loop."""
IN_STREAM: Final = 20_000
"""Elements allowed in one message of a client stream. Such messages are parsed on the loop, and normally have few."""
_EVERY: Final = 4096


def begin(parse: Callable[[bytes], Any], data: bytes) -> Any:  # noqa: ANN401 - a message of any type, or bytes
    """Return a small request parsed and a large one as bytes. `finish` parses the latter."""
    return data if len(data) > SMALL else parse(data)


async def finish(kind: Any, parse: Callable[[bytes], Any], request: Any, most: int) -> Any:  # noqa: ANN401 - any type
    """Return the parsed request. `request` is the result of `begin`. InvalidRequestError: it has too many elements."""
    if not isinstance(request, bytes):
        return request
    return await offload_if_heavy(len(request) // 32, checked, kind, parse, request, most)


def checked(kind: Any, parse: Callable[[bytes], Any], data: bytes, most: int) -> Any:  # noqa: ANN401 - any type
    """Return the parsed message. InvalidRequestError: it has more than `most` elements."""
    if len(data) > SMALL and count(data, kind.DESCRIPTOR, most) > most:
        raise InvalidRequestError(f"a message may have at most {most} elements")
    return parse(data)


def count(data: bytes, descriptor: Descriptor, most: int) -> int:
    """Return the number of fields in an encoded message and its inner messages. Stops at more than `most`.

    A packed field counts as one. Malformed bytes end the count; the parser refuses them.
    """
    found = 0
    inner: dict[str, dict[int, Descriptor]] = {}
    # A stack of its own: the nesting is the client's choice and must not become Python's recursion.
    waiting = [(descriptor, 0, len(data))]
    while waiting and found <= most:
        kind, at, end = waiting.pop()
        # Only fields of message type are entered. Texts and bytes have the same wire type and hold no elements.
        fields = inner.setdefault(
            kind.full_name, {each.number: each.message_type for each in kind.fields if each.message_type}
        )
        while at < end and found <= most:
            found += 1
            # The caller may have left. Asking costs more than a step, so it is done now and then.
            if found % _EVERY == 0:
                check_cancelled()
            tag, at = _varint(data, at)
            # The wire type: 0 varint, 1 eight bytes, 2 a length and so many bytes, 5 four bytes. proto3 has no groups
            # (3 and 4).
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
                    # The end is clipped, since an inner length may point beyond the outer message.
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
        # No valid varint has more than ten bytes.
        if shift > 63:
            return value, len(data)
    return value, at
