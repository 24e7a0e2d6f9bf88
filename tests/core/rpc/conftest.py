import grpc.aio
import pytest
from tests.core.serving.conftest import backend, registry, serving, settings, stocked

from puna.batch.core import Batches
from puna.rpc.batch_items import ItemPerformer
from puna.rpc.server import serving as running
from puna_client.v1 import (
    batch_pb2_grpc,
    chat_pb2_grpc,
    diagnostics_pb2_grpc,
    embed_pb2_grpc,
    files_pb2_grpc,
    generate_pb2_grpc,
    models_pb2_grpc,
    rank_pb2_grpc,
    server_pb2_grpc,
    tokenize_pb2_grpc,
)

__all__ = ["backend", "registry", "serving", "settings", "stocked"]


class Stubs:
    """Every service of a running server."""

    def __init__(self, channel):
        self.channel = channel
        self.generate = generate_pb2_grpc.GenerateServiceStub(channel)
        self.chat = chat_pb2_grpc.ChatServiceStub(channel)
        self.embed = embed_pb2_grpc.EmbedServiceStub(channel)
        self.models = models_pb2_grpc.ModelsServiceStub(channel)
        self.tokenize = tokenize_pb2_grpc.TokenizeServiceStub(channel)
        self.rank = rank_pb2_grpc.RankServiceStub(channel)
        self.batch = batch_pb2_grpc.BatchServiceStub(channel)
        self.files = files_pb2_grpc.FilesServiceStub(channel)
        self.diagnostics = diagnostics_pb2_grpc.DiagnosticsServiceStub(channel)
        self.server = server_pb2_grpc.ServerServiceStub(channel)


@pytest.fixture
async def batches(serving, tmp_path):
    kept = Batches(tmp_path / "batches", serving.settings.limits)
    async with kept.running(serving.activity, ItemPerformer(serving), settle_seconds=0):
        yield kept


@pytest.fixture
async def address(serving, batches):
    async with running(serving, "127.0.0.1:0", batches=batches) as bound:
        yield bound


@pytest.fixture
async def stubs(address):
    options = (("grpc.max_receive_message_length", 64 << 20), ("grpc.max_metadata_size", 4 << 20))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Stubs(channel)
