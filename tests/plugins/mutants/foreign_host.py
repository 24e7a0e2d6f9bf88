"""A host that shares no code with `puna.host` but the conversion of messages, as one in another language would not.

    python foreign_host.py [MUTANT]

It serves the tiny model, or a mutant of it, over gRPC alone, without the faster socket for sequences and without
Describe.
"""

import asyncio
import os
import signal
import sys
import threading
from contextlib import aclosing
from importlib import import_module
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.plugins.mutants.engine import TinyBackend
from tests.plugins.mutants.registry import MUTANTS

from puna.backend import BackendError, Finish
from puna.backend.v1 import backend_pb2 as wire
from puna.backend.v1 import backend_pb2_grpc
from puna.host import convert

FAULTS = ("details", "engine", "models", "prompt_logprobs", "requests", "sampling", "text")
INVALID, UNSUPPORTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED


class Service(backend_pb2_grpc.BackendServiceServicer):
    def __init__(self, backend):
        self.backend = backend
        self.model = None

    async def Load(self, request, context):
        if self.model is not None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "a model is loaded already")
        fractions = []
        try:
            self.model = await self.backend.load(convert.spec_from_wire(request), fractions.append)
        except BackendError as error:
            await self.fail(error, context)
        for fraction in fractions:
            await context.write(wire.LoadResponse(fraction=fraction))
        await context.write(wire.LoadResponse(loaded=convert.facts_to_wire(self.model.facts)))

    async def fail(self, error, context):
        failure = convert.error_to_wire(error)
        unsupported = failure.kind == wire.Failure.KIND_UNSUPPORTED
        metadata = ((convert.FAILURE_KEY, failure.SerializeToString()),)
        await context.abort(UNSUPPORTED if unsupported else INVALID, str(error)[:200], metadata)

    async def call(self, method, context, *values, **options):
        if self.model is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no model is loaded")
        try:
            return await getattr(self.model, method)(*values, **options)
        except BackendError as error:
            await self.fail(error, context)

    async def Run(self, requests, context):
        # One task writes: gRPC permits one write at a time, and a write that is cancelled ends the whole call.
        events = asyncio.Queue()
        running = {}

        async def read():
            async for request in requests:
                if request.WhichOneof("event") == "start":
                    work = self.sequence(request.sequence_id, request.start, events)
                    running[request.sequence_id] = asyncio.ensure_future(work)
                elif task := running.get(request.sequence_id):
                    task.cancel()
            events.put_nowait(None)

        reading = asyncio.ensure_future(read())
        try:
            while (event := await events.get()) is not None:
                await context.write(wire.RunResponse(events=[event]))
        finally:
            for task in (reading, *running.values()):
                task.cancel()
            await asyncio.gather(reading, *running.values(), return_exceptions=True)

    async def sequence(self, number, start, out):
        try:
            async with aclosing(self.model.generate(convert.sequence_from_wire(start))) as events:
                async for event in events:
                    message = wire.RunResponse()
                    convert.add_event(message, number, event)
                    out.put_nowait(message.events[0])
                    if isinstance(event, Finish):
                        return
                    await asyncio.sleep(0)
        except BackendError as error:
            out.put_nowait(wire.SequenceEvent(sequence_id=number, failure=convert.error_to_wire(error)))

    async def Embed(self, request, context):
        inputs = [convert.input_from_wire(each) for each in request.inputs]
        vectors = await self.call("embed", context, inputs, raw=request.raw)
        return wire.EmbedResponse(embeddings=map(convert.embedding_to_wire, vectors))

    async def Rerank(self, request, context):
        found = await self.call("rerank", context, request.query, request.documents)
        return wire.RerankResponse(scores=found.scores, token_count=found.token_count)

    async def Tokenize(self, request, context):
        options = {"add_special": request.add_special, "parse_special": request.parse_special}
        return wire.TokenizeResponse(token_ids=await self.call("tokenize", context, request.text, **options))

    async def Detokenize(self, request, context):
        tokens = tuple(request.token_ids)
        return wire.DetokenizeResponse(pieces=await self.call("detokenize", context, tokens, special=request.special))

    async def Heartbeat(self, request, context):
        return wire.HeartbeatResponse(step=self.model.step() if self.model else None)


async def main():
    for each in FAULTS:
        import_module(f"tests.plugins.mutants.faults_{each}")
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    server = grpc.aio.server()
    service = Service((MUTANTS[name].backend_class if name else TinyBackend)())
    backend_pb2_grpc.add_BackendServiceServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{os.environ['PUNA_HOST_SOCKET']}")
    await server.start()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)

    def watch():
        while os.read(0, 100):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    os.write(1, b"puna.backend.v1 ready\n")
    await ended.wait()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
