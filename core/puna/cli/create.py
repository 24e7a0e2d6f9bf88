"""`puna create`: a client of the running server."""

import argparse
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc.aio

from puna.settings import Settings
from puna.v1 import models_pb2, models_pb2_grpc

CHUNK = 1 << 20


async def create(settings: Settings, arguments: argparse.Namespace) -> int:
    """Make the model, printing each step; raise what the server answers as a grpc error."""
    async with grpc.aio.insecure_channel(settings.grpc_host) as channel:
        stub = models_pb2_grpc.ModelsServiceStub(channel)
        request = models_pb2.CreateModelRequest(
            name=arguments.name,
            template=arguments.template,
            system=arguments.system,
            backend=arguments.backend,
        )
        setattr(request, "from", arguments.source or "")
        try:
            if arguments.gguf:
                digest = await _upload(stub, arguments.gguf)
                request.has_files = True
                request.files.add(name=arguments.gguf.name, digest=digest)
            async for step in stub.CreateModel(request):
                print(step.progress.status)
        except grpc.aio.AioRpcError as error:
            print(f"Error: {error.details()}")
            return 1
    return 0


async def _upload(stub: models_pb2_grpc.ModelsServiceAsyncStub, path: Path) -> str:
    with path.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

    async def parts() -> AsyncGenerator[models_pb2.UploadBlobRequest]:
        yield models_pb2.UploadBlobRequest(digest=digest)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield models_pb2.UploadBlobRequest(chunk=chunk)

    await stub.UploadBlob(parts())
    return digest
