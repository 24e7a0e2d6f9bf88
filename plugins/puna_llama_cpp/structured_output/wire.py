"""The messages between the host and the processes that enforce constraints.

The host sends the constraint with a header, then token ids without headers. The answer to each is one message: its
header, then its bytes.
"""

import struct
from typing import Final

# "<" also leaves out the padding that C would put between the byte and the number.
HEADER: Final = struct.Struct("<cI")
"""Precedes each message: its kind, and the number of bytes that follow."""
TOKEN: Final = struct.Struct("<i")
MASK, REFUSED, FAILED = b"M", b"R", b"F"
"""Messages of a child: a mask; why the constraint is refused; why it cannot be followed further.

The bytes of a mask are followed by the text that must come next, as far as the constraint leaves no choice, and by one
byte with its length. The text is empty where there is a choice.
"""
MAX_FORCED_BYTES: Final = 255
"""Bytes of forced text in one message. What is left of a longer text is in the next ones."""
TIME_LIMIT, MEMORY_LIMIT, CRASHED = b"S", b"L", b"D"
"""Messages of the server about a child that has died: it exceeded its time, its memory, or died otherwise."""
DISCONNECTED = b""
"""Stands for a socket that closed without a message: the server has died too."""
KIND_NAMES: Final = {
    "json_schema": "JSON schema",
    "gbnf": "GBNF grammar",
    "lark": "Lark grammar",
    "regex": "regular expression",
}
"""The names of the kinds of constraints in error messages."""
