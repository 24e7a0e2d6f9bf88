"""The formats in which browsers call gRPC methods: the Connect protocol, and gRPC-Web in its binary and text forms.

Theory. Browsers cannot read the trailers of HTTP, in which gRPC has its status. Connect puts the status of a unary call
into the HTTP status and a body of JSON. The streams of Connect, and every call of gRPC-Web, consist of envelopes: a
byte of flags, the length in four bytes, and a message. The last envelope has a flag of its own and holds the status: as
JSON in Connect, as lines of headers in gRPC-Web. The text form of gRPC-Web is base64 of the binary one.

Requests have one message. Methods whose client streams are refused, since browsers cannot send such requests.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status

_COMPRESSED: Final = 1
_END_OF_STREAM: Final = 2
_TRAILERS: Final = 0x80
_HEAD: Final = 5
"""Bytes before the message of an envelope: flags and length."""
_UNQUOTED: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
"""Characters that stand for themselves in grpc-message."""
HTTP_STATUS: Final = {
    "canceled": 499,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "unavailable": 503,
    "unauthenticated": 401,
}
"""HTTP status by Connect's code; 500 for the others."""
_CODES: Final = (
    *("", "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists"),
    *("permission_denied", "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented"),
    *("internal", "unavailable", "data_loss", "unauthenticated"),
)
"""Connect's codes by the numbers of gRPC."""
INVALID_ARGUMENT: Final = 3


class FormatError(ValueError):
    """The body is not what its content type says. The text tells the client why."""


@dataclass(frozen=True, slots=True)
class WebStatus:
    """The status of a call that failed."""

    code: int
    """Number of the gRPC status code."""
    text: str
    details: bytes = b""
    """Encoded google.rpc.Status; empty: no details."""

    @property
    def http_status(self) -> int:
        """The HTTP status of a unary call of Connect."""
        return HTTP_STATUS.get(_CODES[self.code], 500)

    def as_json(self) -> dict[str, Any]:
        """Return Connect's error."""
        details = [
            {"type": each.type_url.rpartition("/")[2], "value": b64encode(each.value).decode().rstrip("=")}
            for each in Status.FromString(self.details).details
        ]
        error: dict[str, Any] = {"code": _CODES[self.code], "message": self.text}
        return error | {"details": details} if details else error


@dataclass(frozen=True, slots=True)
class Codec:
    """Reads and writes messages."""

    decode: Callable[[bytes, Message], None]
    """Fills a message. FormatError: the bytes are no such message."""
    encode: Callable[[Message], bytes]


def _from_proto(data: bytes, message: Message) -> None:
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise FormatError("the message cannot be read") from None


def _from_json(data: bytes, message: Message) -> None:
    try:
        json_format.Parse(data or b"{}", message, ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(str(error)) from None


def _to_json(message: Message) -> bytes:
    return json_format.MessageToJson(message, indent=None, ensure_ascii=False).encode()


PROTO: Final = Codec(_from_proto, lambda message: message.SerializeToString())
JSON: Final = Codec(_from_json, _to_json)


@dataclass(frozen=True, slots=True)
class Format:
    """The form of a call's request and answer, which its content type tells."""

    codec: Codec
    framed: bool
    """Whether messages stand in envelopes."""
    is_grpc: bool = False
    """gRPC-Web; otherwise Connect."""
    is_text: bool = False
    """Whether everything is in base64."""

    def request(self, body: bytes) -> bytes:
        """Return the message of a body. Raises FormatError."""
        if self.is_text:
            try:
                # The text may be several encoded pieces, each with its own padding.
                body = b"".join(b64decode(each + b"=" * (-len(each) % 4)) for each in body.split(b"="))
            except ValueError:
                raise FormatError("the body is no base64") from None
        if not self.framed:
            return body
        if len(body) < _HEAD:
            raise FormatError("the body has no message")
        size = int.from_bytes(body[1:_HEAD], "big")
        if body[0] & _COMPRESSED:
            raise FormatError("compressed messages are not supported")
        if len(body) < _HEAD + size:
            raise FormatError("the message is cut")
        return body[_HEAD : _HEAD + size]

    def message(self, message: Message) -> bytes:
        """Return a message of the answer."""
        data = self.codec.encode(message)
        return self._envelope(0, data) if self.framed else data

    def end(self, failed: WebStatus | None) -> bytes:
        """Return the end of an answer in envelopes."""
        if not self.is_grpc:
            end = {"error": failed.as_json()} if failed else {}
            return self._envelope(_END_OF_STREAM, json.dumps(end).encode())
        lines = [f"grpc-status:{failed.code if failed else 0}"]
        if failed:
            lines.append(f"grpc-message:{quote(failed.text, safe=_UNQUOTED)}")
            if failed.details:
                lines.append(f"grpc-status-details-bin:{b64encode(failed.details).decode().rstrip('=')}")
        return self._envelope(_TRAILERS, "".join(f"{each}\r\n" for each in lines).encode())

    def _envelope(self, flags: int, data: bytes) -> bytes:
        framed = bytes([flags]) + len(data).to_bytes(4, "big") + data
        return b64encode(framed) if self.is_text else framed


FORMATS: Final = {
    "application/json": Format(JSON, framed=False),
    "application/proto": Format(PROTO, framed=False),
    "application/connect+json": Format(JSON, framed=True),
    "application/connect+proto": Format(PROTO, framed=True),
    "application/grpc-web": Format(PROTO, framed=True, is_grpc=True),
    "application/grpc-web+proto": Format(PROTO, framed=True, is_grpc=True),
    "application/grpc-web-text": Format(PROTO, framed=True, is_grpc=True, is_text=True),
    "application/grpc-web-text+proto": Format(PROTO, framed=True, is_grpc=True, is_text=True),
}
"""Formats by content type."""


def query_message(query: str) -> bytes:
    """Return the message in the query of Connect's GET, as it stands in the URL. Raises FormatError."""
    # Percent-encoded bytes need not be UTF-8. In Latin-1 each byte is a character.
    values = dict(parse_qsl(query, keep_blank_values=True, encoding="latin-1"))
    if values.get("compression", "identity") not in ("", "identity"):
        raise FormatError("compressed messages are not supported")
    text = values.get("message", "")
    if values.get("base64") != "1":
        return text.encode("latin-1")
    try:
        return b64decode(text.rstrip("=").encode("ascii") + b"=" * (-len(text.rstrip("=")) % 4), b"-_", validate=True)
    except ValueError:
        raise FormatError("the message is no base64") from None


def timeout(connect: str, grpc: str) -> float | None:
    """Return the seconds of a header Connect-Timeout-Ms or Grpc-Timeout; None: there is none that can be read."""
    if connect.isdecimal():
        return int(connect[:10]) / 1000
    units = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
    if grpc[:-1].isdecimal() and grpc[-1] in units:
        return int(grpc[:-1][:8]) * units[grpc[-1]]
    return None
