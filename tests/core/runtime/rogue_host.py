"""A program that is a host, and breaks the protocol in the way that its argument names."""

import asyncio
import os
import sys

import grpc

from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc

HOW = sys.argv[1]
FRAMES = {
    "garbage": b"\x04\0\0\0\xff\xff\xff\xff",
    "endless": b"\xff\xff\xff\xff" + b"x" * 1000,
    "half": b"\x10\0\0\0abc",
    "silent": b"",
}


def events(sequence_id):
    delta = wire.SequenceEvent(sequence_id=sequence_id, text_delta=wire.TextDelta(text="a"))
    end = wire.SequenceEvent(sequence_id=sequence_id, finish=wire.Finish(output_tokens=1))
    return {
        "unknown_id": [delta, wire.SequenceEvent(sequence_id=sequence_id + 7, finish=wire.Finish())],
        "no_kind": [delta, wire.SequenceEvent(sequence_id=sequence_id)],
        "no_reason": [delta, wire.SequenceEvent(sequence_id=sequence_id, failure=wire.Failure())],
        "strange_kind": [wire.SequenceEvent(sequence_id=sequence_id, failure=wire.Failure(kind=99, message="why"))],
        "negative": [wire.SequenceEvent(sequence_id=sequence_id, finish=wire.Finish(prompt_tokens=-1))],
        "chatty": [wire.SequenceEvent(sequence_id=sequence_id, chat_delta=wire.ChatDelta(content="a"))],
        "twice": [delta, end, end, delta],
        "embeds_half": [wire.SequenceEvent(sequence_id=sequence_id, embedding=wire.Embedding(values=b"12345"))],
        "embeds_none": [wire.SequenceEvent(sequence_id=sequence_id, embedding=wire.Embedding(token_count=-1))],
    }.get(HOW, [delta, end])


def message(sequence_id):
    return wire.RunResponse(events=events(sequence_id)).SerializeToString()


class Rogue(backend_pb2_grpc.BackendServiceServicer):
    async def Describe(self, request, context):  # noqa: N802
        if HOW == "version":
            return wire.DescribeResponse(contract_version=7)
        if HOW == "mute":
            await asyncio.sleep(3600)
        if HOW.startswith("embeds"):
            return wire.DescribeResponse(contract_version=1, embeds_in_run=True)
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")

    async def Load(self, request, context):  # noqa: N802
        if HOW == "fractions":
            for fraction in (float("nan"), -1.0, 7.0, float("inf"), 0.5):
                yield wire.LoadResponse(fraction=fraction)
        if HOW == "nothing":
            return
        if HOW == "bad_failure":
            metadata = (("puna-failure-bin", b"\xff\xff"),)
            await context.abort(grpc.StatusCode.INTERNAL, "broken", trailing_metadata=metadata)
        parallel = 0 if HOW == "no_slots" else 2
        yield wire.LoadResponse(loaded=wire.Loaded(context_length=64, parallel=parallel, generates=True))

    async def Run(self, request_iterator, context):  # noqa: N802
        async for request in request_iterator:
            if request.HasField("start"):
                if HOW == "grpc_aborts":
                    await context.abort(grpc.StatusCode.UNKNOWN, "no more")
                if HOW == "grpc_huge":
                    yield wire.RunResponse(events=[wire.SequenceEvent(text_delta=wire.TextDelta(text="x" * 4_000_000))])
                yield wire.RunResponse(events=events(request.sequence_id))

    async def Embed(self, request, context):  # noqa: N802
        if HOW == "half_vector":
            return wire.EmbedResponse(embeddings=[wire.Embedding(values=b"12345", token_count=1)])
        if HOW == "huge_answer":
            return wire.EmbedResponse(embeddings=[wire.Embedding(values=b"\0" * 4_000_000, token_count=1)])
        return await asyncio.sleep(3600)

    async def Heartbeat(self, request, context):  # noqa: N802
        if HOW == "forgetful":
            return wire.HeartbeatResponse()
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")


async def answer(reader, writer):
    """Serve the stream socket."""
    while True:
        length = int.from_bytes(await reader.readexactly(4), "little")
        request = wire.RunRequest.FromString(await reader.readexactly(length))
        if request.HasField("start") or request.HasField("embed"):
            reply = message(request.sequence_id)
            writer.write(FRAMES.get(HOW, len(reply).to_bytes(4, "little") + reply))


async def main():
    path = os.environ["PUNA_HOST_SOCKET"]
    server = grpc.aio.server()
    backend_pb2_grpc.add_BackendServiceServicer_to_server(Rogue(), server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    if not HOW.startswith("grpc"):
        await asyncio.start_unix_server(answer, f"{path}.r")
    os.write(1, b"puna.backend.v1 ready\n")
    if HOW == "prints":
        os.write(2, b"x" * 3_000_000 + b"\n" * 200_000)
        os.write(2, b'puna.backend.v1 error {"a": [1, 2\npuna.backend.v1 progress many\npuna.backend.v1 error 7\n')
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


asyncio.run(main())
