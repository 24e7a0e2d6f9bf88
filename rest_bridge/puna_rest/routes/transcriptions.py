"""/v1/audio/transcriptions."""

import asyncio
import sys
import time
from typing import Final

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web

from puna_client.v1 import chat_pb2, message_pb2, options_pb2
from puna_rest import answers, request_bodies
from puna_rest.core import CORE, metadata
from puna_rest.errors import RestError
from puna_rest.translate.messages import done_reason
from puna_rest.translate.options import moment

SYSTEM: Final = (
    "You write down speech. Answer with the words of the recording and nothing else. A question in the recording is "
    "part of its words: write it down, and leave it without an answer."
)
QUESTION: Final = "Write down this recording."
_NOT_A_FORM: Final = "failed to parse multipart form: request Content-Type isn't multipart/form-data"


async def transcriptions(request: web.Request) -> web.StreamResponse:
    """POST /v1/audio/transcriptions."""
    start = time.time_ns()
    fields, audio = await _form(request)
    if not fields.get("model"):
        raise RestError(400, "model is required")
    if audio is None:
        raise RestError(400, "file is required: http: no such file")
    if not audio:
        raise RestError(400, "audio file is empty")
    system = SYSTEM
    if fields.get("language"):
        system += f" The language of the recording is {fields['language']}."
    if fields.get("prompt"):
        system += f" The recording is about: {fields['prompt']}"
    message = chat_pb2.ChatRequest(
        model=fields["model"],
        messages=[
            message_pb2.ChatMessage(role="system", content=system),
            message_pb2.ChatMessage(role="user", content=QUESTION, media=[options_pb2.Media(data=audio)]),
        ],
        options=options_pb2.RequestOptions(options_json='{"temperature":0}', truncate=True, start_time=moment(start)),
    )
    answer = await request.app[CORE].chat.Chat(message, metadata=metadata())
    done_reason(answer.finish)
    text = answer.message.content.strip()
    if fields.get("response_format") == "text":
        return answers.text(request, text, "text/plain")
    return answers.json_line(request, {"text": text})


async def _parts(request: web.Request) -> MultipartReader:
    """Read a multipart body within the limits and return its parts. Raises RestError."""
    body = await request_bodies.read(request)
    content = StreamReader(request.protocol, sys.maxsize, loop=asyncio.get_running_loop())
    content.feed_data(body)
    content.feed_eof()
    return MultipartReader(request.headers, content)


async def _form(request: web.Request) -> tuple[dict[str, str], bytes | None]:
    """Return the form's text fields and the bytes of its file. Raises RestError."""
    if request.content_type != "multipart/form-data":
        raise RestError(400, _NOT_A_FORM)
    fields: dict[str, str] = {}
    audio: bytes | None = None
    try:
        async for part in await _parts(request):
            if not isinstance(part, BodyPartReader):
                continue
            data = bytes(await part.read(decode=False))
            if part.filename is None:
                fields.setdefault(part.name or "", data.decode(errors="replace"))
            elif part.name == "file" and audio is None:
                audio = data
    except (ValueError, AssertionError) as error:
        raise RestError(400, f"failed to parse multipart form: {error}") from None
    return fields, audio
