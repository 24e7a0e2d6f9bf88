"""The gRPC stubs of the core, and the channel options they need."""

from dataclasses import dataclass
from typing import Final

import grpc.aio
from aiohttp import web

from puna.v1 import chat_pb2_grpc, embed_pb2_grpc, generate_pb2_grpc, models_pb2_grpc, server_pb2_grpc
from puna_rest.errors import LONG_ERRORS

METADATA: Final = (LONG_ERRORS,)
"""Metadata of every call: the bridge takes error messages of any length."""
CHANNEL_OPTIONS: Final = (
    # Some messages exceed gRPC's default of 4 MiB: a model with all tensors, images, an error that quotes its input.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 4 * 1024 * 1024),
    ("grpc.absolute_max_metadata_size", 8 * 1024 * 1024),
)


@dataclass(frozen=True, slots=True)
class Core:
    """The core's services. The stubs' types exist for type checkers alone, hence the quotes."""

    generate: "generate_pb2_grpc.GenerateServiceAsyncStub"
    chat: "chat_pb2_grpc.ChatServiceAsyncStub"
    embed: "embed_pb2_grpc.EmbedServiceAsyncStub"
    models: "models_pb2_grpc.ModelsServiceAsyncStub"
    server: "server_pb2_grpc.ServerServiceAsyncStub"


CORE: Final = web.AppKey("core", Core)


def connect(channel: grpc.aio.Channel) -> Core:
    """Return stubs over an open channel. The caller keeps the channel and closes it."""
    return Core(
        generate_pb2_grpc.GenerateServiceStub(channel),
        chat_pb2_grpc.ChatServiceStub(channel),
        embed_pb2_grpc.EmbedServiceStub(channel),
        models_pb2_grpc.ModelsServiceStub(channel),
        server_pb2_grpc.ServerServiceStub(channel),
    )
