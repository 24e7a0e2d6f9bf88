"""A deadline and a cancellation in the queue, the load, the prefill and the decoding."""

import asyncio
import contextlib

import pytest

from conftest import eventually, listed
from puna_client import DeadlineExceededError

CASES = {
    "queued": ("phases", "never"),
    "loading": ("stuck", "never"),
    "prefill": ("phases", "@prefill 100 .1"),
    "decode": ("phases", "word @wait .1 " * 100),
}


class Call:
    """A call that is read in the background, and the phases that it has reached."""

    def __init__(self, client, model, words, timeout=None):
        self.phase = ""
        self._changed = asyncio.Event()
        self.stream = client.generate(
            model, words, raw=True, timeout=timeout, on_progress=lambda told: self._reached(told.WhichOneof("phase"))
        )
        self.task = asyncio.create_task(self._read())

    async def _read(self):
        async for _ in self.stream:
            self._reached("decode")

    def _reached(self, phase):
        self.phase = phase
        self._changed.set()

    async def until(self, phase):
        """Wait until the call has reached a phase."""
        async with asyncio.timeout(60):
            while self.phase != phase:
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def full(client, phase):
    """Hold the slot of the model while the block runs, if the phase needs that."""
    if phase != "queued":
        yield 0
        return
    holder = Call(client, "phases", "started @wait 60")
    await holder.until("decode")
    yield 1
    holder.task.cancel()


@pytest.mark.parametrize("phase", CASES)
@pytest.mark.parametrize("how", ["deadline", "cancellation"])
async def test_the_end_of_a_call(client, phase, how):
    model, words = CASES[phase]
    async with full(client, phase) as others:
        call = Call(client, model, words, timeout=2 if how == "deadline" else None)
        await call.until(phase)
        if how == "deadline":
            with pytest.raises(DeadlineExceededError):
                await call.task
        else:
            call.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call.task
        assert call.phase == phase

        async def gone():
            return await listed(client, model) == others

        await eventually(gone)
    answer = await client.generate("phases", "free", raw=True, timeout=30).result()
    assert answer.text == "free"


async def test_leaving_the_loop_frees_the_slot(client):
    async for delta in client.generate("phases", "word @wait .1 " * 100, raw=True):
        assert delta.text
        break
    answer = await client.generate("phases", "free", raw=True, timeout=5).result()
    assert answer.text == "free"
