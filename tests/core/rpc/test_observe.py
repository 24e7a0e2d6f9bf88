import asyncio

import pytest

from puna.errors import ServerEndingError
from puna.rpc.error_boundary import CancelledByRequestError
from puna.rpc.observe import observed
from puna.serving.activity import Activity


async def start(activity):
    """Start a call that lasts until it is cancelled; return its task and its entry."""

    async def call():
        with observed(activity, "m", "Chat"):
            await asyncio.sleep(30)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    (entry,) = activity.entries("m")
    return task, entry


async def test_a_call_is_listed_while_it_runs():
    activity = Activity()
    with observed(activity, "m", "Chat") as entry:
        assert list(activity.entries("m")) == [entry]
        assert list(activity.entries("other")) == []
    assert list(activity.entries("")) == []


async def test_a_call_that_cancel_requests_names_ends_with_its_own_error():
    activity = Activity()
    task, entry = await start(activity)
    assert activity.cancel(entry.id)
    with pytest.raises(CancelledByRequestError):
        await task
    assert list(activity.entries("")) == []


async def test_a_client_that_hangs_up_leaves_a_plain_cancellation():
    task, _ = await start(Activity())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_shutdown_has_precedence():
    task, entry = await start(Activity())
    entry.cancelled = entry.ended = True
    task.cancel()
    with pytest.raises(ServerEndingError):
        await task
