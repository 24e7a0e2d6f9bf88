"""Clients of the servers that the harness has started. The tests use puna-client as a Python service does."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess

import pytest

from puna_client import AsyncClient, tls
from puna_client.v1.options_pb2 import RequestOptions, SamplingOptions, ThinkingLevel
from puna_client.v1.server_pb2 import ListRequestsRequest
from puna_client.v1.server_pb2_grpc import ServerServiceStub

EXACT = RequestOptions(sampling=SamplingOptions(temperature=0), thinking=ThinkingLevel.THINKING_LEVEL_OFF)
"""Makes answers the same each time."""


@pytest.fixture
async def client():
    """A client of the server without TLS and keys."""
    async with AsyncClient(os.environ["PUNA_ADDRESS"]) as made:
        yield made


def secure(key):
    """Return a client of the server with TLS and keys."""
    return AsyncClient(os.environ["PUNA_SECURE_ADDRESS"], tls=tls(ca=os.environ["PUNA_CA"]), key=key)


def free_port():
    """Return a port of loopback on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.asynccontextmanager
async def server(port):
    """Run a server until the block ends; yield its process."""
    process = await asyncio.create_subprocess_exec(
        os.environ["PUNA_SERVE"], f"127.0.0.1:{port}", stdout=subprocess.PIPE
    )
    try:
        assert await process.stdout.readline(), "the server did not start"
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def listed(client, model):
    """Return how many requests of a model the server has."""
    request = ListRequestsRequest(model=model)
    return len((await ServerServiceStub(client.channel).ListRequests(request, metadata=client.metadata)).requests)


async def eventually(condition):
    """Wait until an async condition holds."""
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - servers tell of no change
            await asyncio.sleep(0.02)
