"""EmbedService."""

import asyncio
import sys
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

from puna.blocking import retrieve_exception
from puna.errors import EngineRefusedError, InputTooLongError, InvalidRequestError, PunaError
from puna.offload import offload_if_heavy, weight_of_message
from puna.rpc import answers, bounds, convert
from puna.rpc.error_boundary import Context, streaming, unary
from puna.rpc.observe import observed
from puna.rpc.parts import PART_BYTES, groups
from puna.rpc.status import item_error
from puna.serving.activity import Entry
from puna.serving.answers import Embeddings, Usage
from puna.serving.core import Serving
from puna.serving.embed import weight_of_vectors
from puna.serving.requests import EmbedRequest
from puna_client.v1 import embed_pb2, embed_pb2_grpc

AT_ONCE: Final = 64
"""Most texts of one stream that go to the backend in one call."""
_OF_TEXTS: Final = (InvalidRequestError, InputTooLongError, EngineRefusedError)
"""Errors that a text to embed may have, without their subclasses."""
FLOAT_BYTES: Final = 4
"""Bytes of a float on the wire, in both encodings."""


class EmbedServicer(embed_pb2_grpc.EmbedServiceServicer):
    """Serves EmbedService."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @unary
    async def Embed(self, request: embed_pb2.EmbedRequest, context: Context) -> embed_pb2.EmbedResponse:
        """Embed a list of texts."""
        found = await self._found(request, "Embed")
        return await offload_if_heavy(weight_of_vectors(found.vectors), _response, found, request.encoding)

    @streaming
    async def StreamVectors(self, request: embed_pb2.EmbedRequest, context: Context) -> None:
        """Embed a list of texts, and return the vectors in parts."""
        encoding = request.encoding
        found = await self._found(request, "StreamVectors")
        for some in groups([FLOAT_BYTES * len(each) for each in found.vectors], PART_BYTES):
            vectors = found.vectors[some]
            made = await offload_if_heavy(weight_of_vectors(vectors), _part, vectors, encoding)
            await context.write(embed_pb2.StreamVectorsResponse(part=made))
        await context.write(embed_pb2.StreamVectorsResponse(part=_response(replace(found, vectors=()), encoding)))

    async def _found(self, request: embed_pb2.EmbedRequest, method: str) -> Embeddings:
        with observed(self._serving.activity, request.model, method) as entry:
            bounds.check_embed(request, self._serving.settings.limits)
            asked = await offload_if_heavy(weight_of_message(request), convert.embed_request, request)
            found = await self._serving.embed(asked, entry.on_progress)
            entry.usage, entry.timings, entry.vectors = found.usage, found.timings, len(found.vectors)
        return found

    @streaming
    async def StreamEmbed(self, request: AsyncIterator[embed_pb2.StreamEmbedRequest], context: Context) -> None:
        """Embed the texts of a stream. Texts that have arrived go to the backend together, without waiting for more."""
        first = await anext(request, None)
        if first is None or first.WhichOneof("part") != "config":
            raise InvalidRequestError("the first message must be `config`", field="config")
        config = first.config
        if config.inputs:
            raise InvalidRequestError("the texts of a stream come in messages of their own", field="config.inputs")
        # When the queue is full, the client is slowed down by HTTP/2 flow control, so memory stays bounded.
        arrived: asyncio.Queue[embed_pb2.StreamEmbedRequest.Item | None] = asyncio.Queue(2 * AT_ONCE)

        bad: list[InvalidRequestError] = []

        async def read() -> None:
            async for message in request:
                if message.WhichOneof("part") != "item":
                    bad.append(InvalidRequestError("messages after the first must be `item`", field="item"))
                    break
                await arrived.put(message.item)
            await arrived.put(None)

        with observed(self._serving.activity, config.model, "StreamEmbed") as entry:
            bounds.check_embed(config, self._serving.settings.limits)
            asked = convert.embed_request(config)
            reading = asyncio.create_task(read())
            reading.add_done_callback(retrieve_exception)
            try:
                while items := await _next(arrived):
                    results = await self._results(asked, [each.input for each in items], entry)
                    for item, result in zip(items, results, strict=True):
                        await context.write(_result(item.id, result, config.encoding, entry))
                if bad:
                    raise bad[0]
            finally:
                reading.cancel()
                await asyncio.wait({reading})

    async def _results(self, asked: EmbedRequest, texts: Sequence[str], entry: Entry) -> list[Embeddings | PunaError]:
        """Embed texts; return for each its vector, or the error that concerns it alone.

        One bad text fails a whole call of the backend. Halves are tried again until the bad text is alone, which costs
        a logarithm of extra calls for each bad text and none without one.
        """
        try:
            found = await self._serving.embed(replace(asked, inputs=tuple(texts)), entry.on_progress)
        except InvalidRequestError as error:
            if not _concerns_text(error):
                raise
            if len(texts) == 1:
                return [error]
            half = len(texts) // 2
            halves = texts[:half], texts[half:]
            return [result for each in halves for result in await self._results(asked, each, entry)]
        return [
            replace(found, vectors=(vector,), token_counts=(count,), usage=replace(found.usage, prompt_tokens=count))
            for vector, count in zip(found.vectors, found.token_counts, strict=True)
        ]


def _concerns_text(error: InvalidRequestError) -> bool:
    # Errors about the configuration name its field or have classes of their own, and every other text would fail too.
    return type(error) in _OF_TEXTS and "field" not in error.info


def _result(
    id_: str, result: Embeddings | PunaError, encoding: embed_pb2.VectorEncoding.ValueType, entry: Entry
) -> embed_pb2.StreamEmbedResponse:
    # Each result carries the client's id, so the client need not count.
    if isinstance(result, PunaError):
        return embed_pb2.StreamEmbedResponse(id=id_, error=item_error(result))
    before = entry.usage.prompt_tokens if entry.usage else 0
    entry.usage = Usage(prompt_tokens=before + result.usage.prompt_tokens)
    entry.vectors += 1
    return embed_pb2.StreamEmbedResponse(
        id=id_, vector=vector(result.vectors[0], encoding), usage=answers.usage(result.usage)
    )


async def _next(
    arrived: "asyncio.Queue[embed_pb2.StreamEmbedRequest.Item | None]",
) -> list[embed_pb2.StreamEmbedRequest.Item]:
    """Wait for a text and return it with all others that have arrived; an empty list ends the stream."""
    items: list[embed_pb2.StreamEmbedRequest.Item] = []
    item = await arrived.get()
    while item is not None:
        items.append(item)
        if len(items) == AT_ONCE or arrived.empty():
            return items
        item = arrived.get_nowait()
    # The end was taken out of the queue together with texts. It goes back, so that the next call finds it.
    arrived.put_nowait(None)
    return items


def _part(vectors: Sequence[Sequence[float]], encoding: embed_pb2.VectorEncoding.ValueType) -> embed_pb2.EmbedResponse:
    return embed_pb2.EmbedResponse(
        vectors=[vector(each, encoding) for each in vectors],
        encoding=encoding or embed_pb2.VECTOR_ENCODING_FLOAT_LIST,
    )


def _response(found: Embeddings, encoding: embed_pb2.VectorEncoding.ValueType) -> embed_pb2.EmbedResponse:
    return embed_pb2.EmbedResponse(
        vectors=[vector(each, encoding) for each in found.vectors],
        usage=answers.usage(found.usage),
        timings=answers.timings(found.timings),
        encoding=encoding or embed_pb2.VECTOR_ENCODING_FLOAT_LIST,
    )


def vector(values: Sequence[float], encoding: embed_pb2.VectorEncoding.ValueType) -> embed_pb2.Vector:
    """Return a vector as a message."""
    if encoding == embed_pb2.VECTOR_ENCODING_FLOAT32_LE:
        packed = array("f", values)
        # The wire has little-endian floats, whatever the machine.
        if sys.byteorder == "big":
            packed.byteswap()
        return embed_pb2.Vector(packed=packed.tobytes())
    return embed_pb2.Vector(values=values)
