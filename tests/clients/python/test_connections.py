"""Keepalive, TLS and keys, servers that start late or end, and retries."""

import asyncio
import os
import signal

import grpc
import pytest

import puna_client
from conftest import eventually, free_port, secure, server
from puna_client import AsyncClient

ADDRESS = os.environ["PUNA_ADDRESS"]
PINGS = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.use_local_subchannel_pool", 1),
]


async def test_pings_every_ten_seconds():
    """A server that counts them as too many ends the connection after 40 seconds."""

    async def with_a_silent_call():
        async with AsyncClient(ADDRESS, options=PINGS) as client:
            return (await client.generate("silent", "@wait 45 done", raw=True).result()).text

    async def without_a_call():
        async with AsyncClient(ADDRESS, options=PINGS) as client:
            await client.wait_until_ready()
            changing = client.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(changing, 45)

    assert (await asyncio.gather(with_a_silent_call(), without_a_call()))[0] == "done"


async def test_tls_and_keys():
    async with secure(os.environ["PUNA_API_KEY"]) as client:
        assert await client.list_models()
    for key in (None, "puna_wrong"):
        async with secure(key) as client:
            with pytest.raises(puna_client.UnauthenticatedError):
                await client.list_models()
    async with AsyncClient(os.environ["PUNA_SECURE_ADDRESS"], tls=True) as client:
        with pytest.raises(puna_client.UnavailableError):
            await client.list_models()


async def test_a_server_that_starts_late():
    port = free_port()
    async with (
        AsyncClient(f"127.0.0.1:{port}") as hasty,
        AsyncClient(f"127.0.0.1:{port}", wait_for_ready=True) as patient,
    ):
        with pytest.raises(puna_client.UnavailableError):
            await hasty.generate("steady", "early", raw=True).result()
        answering = asyncio.create_task(patient.generate("steady", "late", raw=True, timeout=60).result())
        waiting = asyncio.create_task(patient.wait_until_ready())
        async with server(port):
            assert (await answering).text == "late"
            await waiting


async def test_retries_by_the_service_config(tmp_path):
    """The hosts of the model die in the first two attempts, of which the server itself makes the second."""
    prompt = f"@crash_once {tmp_path}/%s @crash_once {tmp_path}/%s again"
    async with AsyncClient(ADDRESS, service_config="{}") as client:
        with pytest.raises(puna_client.BackendCrashedError):
            await client.generate("steady", prompt % ("one", "two"), raw=True).result()
    async with AsyncClient(ADDRESS) as client:
        answer = await client.generate("steady", prompt % ("three", "four"), raw=True).result()
    assert answer.text == "again"


async def test_one_of_two_servers_drains():
    ports = [free_port(), free_port()]
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    async with server(ports[0]) as draining, server(ports[1]), AsyncClient(target, wait_for_ready=True) as client:
        answers, stopping = 0, False

        async def ask():
            nonlocal answers
            while not stopping:
                answer = await client.generate("steady", "a @wait .1 b", raw=True, timeout=60).result()
                assert answer.text == "ab"
                answers += 1

        async def both_answer():
            return all([await loaded(port) for port in ports])

        asking = [asyncio.create_task(ask()) for _ in range(6)]
        await eventually(both_answer)
        draining.send_signal(signal.SIGTERM)
        assert await draining.wait() == 0
        before = answers

        async def goes_on():
            return answers > before + 5

        await eventually(goes_on)
        stopping = True
        await asyncio.gather(*asking)


async def loaded(port):
    """Return whether a server has run the model."""
    async with AsyncClient(f"127.0.0.1:{port}") as client, client.health("steady") as statuses:
        return await anext(statuses)
