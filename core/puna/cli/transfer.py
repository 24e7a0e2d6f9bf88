"""The commands `pull` and `push`."""

from puna.cli.client import connected
from puna.cli.progress import follow
from puna.settings import Settings
from puna_client.v1 import models_pb2, models_pb2_grpc


async def pull(settings: Settings, name: str, *, insecure: bool, as_json: bool) -> None:
    """Pull a model from a registry."""
    async with connected(settings) as channel:
        request = models_pb2.PullModelRequest(name=name, insecure=insecure)
        await follow(models_pb2_grpc.ModelsServiceStub(channel).PullModel(request), as_json=as_json)


async def push(settings: Settings, name: str, *, insecure: bool, as_json: bool) -> None:
    """Push a model to a registry."""
    async with connected(settings) as channel:
        request = models_pb2.PushModelRequest(name=name, insecure=insecure)
        await follow(models_pb2_grpc.ModelsServiceStub(channel).PushModel(request), as_json=as_json)
