"""The messages between the host and the processes that follow constraints."""

import struct
from typing import Final

HEADER: Final = struct.Struct("<cI")
"""Before each message: its kind and the bytes that follow. Tokens have no header."""
TOKEN: Final = struct.Struct("<i")
MASK, REFUSED, FAILED = b"M", b"R", b"F"
"""Messages of a child: a mask; why the constraint is refused; why it cannot be followed further."""
TIME_LIMIT, MEMORY_LIMIT, CRASHED = b"S", b"L", b"D"
"""Messages of the server about a child that has died: it took too much time, or memory, or died otherwise."""
DISCONNECTED = b""
"""Stands for a socket that closes without a message: the server has died too."""
KIND_NAMES: Final = {
    "json_schema": "JSON schema",
    "gbnf": "GBNF grammar",
    "lark": "Lark grammar",
    "regex": "regular expression",
}
"""How errors call the kinds of constraints."""
