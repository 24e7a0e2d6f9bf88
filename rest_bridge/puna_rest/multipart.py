"""Multipart forms that are read while they arrive. Their text fields are kept, and the file is passed on in chunks."""

from collections.abc import AsyncGenerator
from typing import Final, cast

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from puna_rest.connections import Connection
from puna_rest.errors import RestError, TooLargeError

CHUNK: Final = 1 << 18
"""Bytes of the file that are passed on at once."""
LONGEST_FIELD: Final = 1 << 16
"""Bytes of a text field."""
MOST_PARTS: Final = 32
FRAMING: Final = 1 << 20
"""Bytes that a form may have beside its file."""
_ERRORS: Final = (ValueError, AssertionError, RuntimeError, EOFError, HttpProcessingError, web.RequestPayloadError)
"""The errors that aiohttp raises for forms that are malformed or cut."""
_MALFORMED: Final = "the form cannot be read: it is no multipart/form-data, or it is cut"


class _Content:
    """A body as MultipartReader reads it, with the connection's timeouts and a limit on its bytes."""

    def __init__(self, request: web.Request, most: int, setting: str) -> None:
        connection = request.protocol
        assert isinstance(connection, Connection)
        self._connection = connection
        self._content = request.content
        self._most = most
        self._setting = setting
        self._size = 0
        connection.receive(request.content)

    async def read(self, size: int = -1) -> bytes:
        self._connection.want()
        return self._counted(await self._content.read(size))

    async def readline(self, **bounds: int) -> bytes:
        # Newer versions of aiohttp pass `max_line_length`.
        self._connection.want()
        return self._counted(await self._content.readline(**bounds))

    def unread_data(self, data: bytes) -> None:
        self._size -= len(data)
        self._content.unread_data(data)

    def at_eof(self) -> bool:
        return self._content.at_eof()

    def _counted(self, data: bytes) -> bytes:
        # The time until the next read is the server's own.
        self._connection.silent_since = None
        self._size += len(data)
        if self._size > self._most:
            raise TooLargeError(self._most - FRAMING, self._setting)
        return data

    def end(self) -> None:
        self._connection.received()


class Form:
    """A form with text fields and one file."""

    def __init__(self, request: web.Request, most: int, setting: str) -> None:
        """`most`: bytes of the file, which the environment variable `setting` sets. Raises RestError."""
        if request.content_type != "multipart/form-data":
            raise RestError(400, _MALFORMED)
        if (request.content_length or 0) > most + FRAMING:
            raise TooLargeError(most, setting)
        self.fields: dict[str, str] = {}
        self.file_name = ""
        self._content = _Content(request, most + FRAMING, setting)
        try:
            self._reader = MultipartReader(request.headers, cast("StreamReader", self._content))
        except (ValueError, AssertionError):
            raise RestError(400, _MALFORMED) from None
        self._parts = 0
        self._file: BodyPartReader | None = None

    async def until_file(self, name: str) -> bool:
        """Read the fields before the file of this name; return whether there is one. Raises RestError."""
        try:
            while (part := await self._reader.next()) is not None:
                self._parts += 1
                if self._parts > MOST_PARTS or not isinstance(part, BodyPartReader):
                    raise RestError(400, _MALFORMED)
                if part.filename is not None and part.name == name and self._file is None:
                    self._file, self.file_name = part, part.filename
                    return True
                await self._read_field(part)
        except _ERRORS:
            raise RestError(400, _MALFORMED) from None
        self._content.end()
        return False

    async def _read_field(self, part: BodyPartReader) -> None:
        data = bytearray()
        while chunk := await part.read_chunk(CHUNK):
            data += chunk
            if len(data) > LONGEST_FIELD:
                raise RestError(400, f"the form's field {part.name or ''!r} has more than {LONGEST_FIELD} bytes")
        self.fields.setdefault(part.name or "", data.decode(errors="replace"))

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the bytes of the file, then read the fields behind it. Raises RestError."""
        assert self._file is not None
        try:
            while chunk := await self._file.read_chunk(CHUNK):
                yield bytes(chunk)
        except _ERRORS:
            raise RestError(400, _MALFORMED) from None
        await self.until_file("")
