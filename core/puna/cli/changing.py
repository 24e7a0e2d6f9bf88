"""The commands `cp`, `rm` and `stop`."""

import sys

import grpc.aio

from puna.cli.client import connected, not_found
from puna.cli.errors import CommandError
from puna.settings import Settings
from puna_client.v1 import models_pb2, models_pb2_grpc


async def copy(settings: Settings, source: str, destination: str) -> None:
    """Copy a model to another name."""
    async with connected(settings) as channel:
        request = models_pb2.CopyModelRequest(source=source, destination=destination)
        await models_pb2_grpc.ModelsServiceStub(channel).CopyModel(request)
    print(f"copied '{source}' to '{destination}'")


async def remove(settings: Settings, names: list[str]) -> None:
    """Unload and delete models one by one."""
    async with connected(settings) as channel:
        stub = models_pb2_grpc.ModelsServiceStub(channel)
        for name in names:
            try:
                await stub.UnloadModel(models_pb2.UnloadModelRequest(name=name))
            except grpc.aio.AioRpcError as error:
                # A model that is not in the store gets its error from the deletion below.
                if not not_found(error):
                    print(f"Warning: unable to stop model '{name}'", file=sys.stderr)
            await stub.DeleteModel(models_pb2.DeleteModelRequest(name=name))
            print(f"deleted '{name}'")


async def stop(settings: Settings, name: str) -> None:
    """Unload a model when its running requests are done."""
    async with connected(settings) as channel:
        try:
            await models_pb2_grpc.ModelsServiceStub(channel).UnloadModel(models_pb2.UnloadModelRequest(name=name))
        except grpc.aio.AioRpcError as error:
            if not_found(error):
                # Ollama's command prints this text, which differs from that of its server.
                raise CommandError(f'couldn\'t find model "{name}" to stop') from error
            raise
