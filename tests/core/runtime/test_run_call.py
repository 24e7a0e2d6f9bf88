"""A host without a socket for the stream is called by gRPC alone."""

import asyncio
from contextlib import aclosing

import pytest

from puna.backend import Finish, SequenceRequest
from puna.errors import BackendCrashedError
from puna.runtime import local_launcher


@pytest.fixture
def load_plain(load_hosted, monkeypatch):
    monkeypatch.setattr(local_launcher, "address", lambda socket: f"{socket}.nowhere")
    return load_hosted


async def test_sequences_come_through(load_plain):
    model = await load_plain()

    async def collect(prompt):
        return [event async for event in model.generate(SequenceRequest(prompt=prompt))]

    answers = await asyncio.gather(*(collect(f"{number} x") for number in range(20)))
    assert [[event.text for event in answer[:-1]] for answer in answers] == [[str(n), "x"] for n in range(20)]
    assert all(isinstance(answer[-1], Finish) for answer in answers)


async def test_a_crash_is_told(load_plain):
    model = await load_plain()
    with pytest.raises(BackendCrashedError):
        async with aclosing(model.generate(SequenceRequest(prompt="@crash SIGKILL"))) as events:
            async for _ in events:
                pass


async def test_a_stream_that_cannot_be_opened_ends_the_load(load_hosted, monkeypatch):
    async def refused(*_, **__):
        raise PermissionError("no")

    monkeypatch.setattr(local_launcher, "connect", refused)
    with pytest.raises(PermissionError):
        await asyncio.wait_for(load_hosted(), 30)
