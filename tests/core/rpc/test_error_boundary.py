import asyncio
import gc
import logging
import weakref

import grpc
import grpc.aio
import pytest

from puna.errors import ModelNotFoundError
from puna.rpc.error_boundary import CancelledByRequestError, cancelled, end, unary


class Aborted(grpc.aio.BaseError):
    """What grpc.aio raises in `abort`."""


class Context:
    """The part of grpc.aio's context that the boundary uses. `gone`: the client has left."""

    def __init__(self, *, metadata=(), gone=False):
        self.metadata = metadata
        self.gone = gone
        self.status = None

    def invocation_metadata(self):
        return self.metadata

    async def abort(self, code, details, trailing_metadata=()):
        if self.gone:
            raise grpc.aio.InternalError
        self.status = (code, details, dict(trailing_metadata))
        raise Aborted


async def outcome(error, **context):
    """Run a handler that raises the error; return the status of the call."""

    @unary
    async def handler(_servicer, _request, _context):
        raise error

    seen = Context(**context)
    with pytest.raises(Aborted):
        await handler(None, "request", seen)
    return seen.status


@pytest.mark.parametrize(
    ("error", "code", "details"),
    [
        (ModelNotFoundError("m"), grpc.StatusCode.NOT_FOUND, str(ModelNotFoundError("m"))),
        (CancelledByRequestError(), grpc.StatusCode.CANCELLED, "the request was cancelled through CancelRequests"),
        (ValueError("secret"), grpc.StatusCode.INTERNAL, "internal error, see the server's log"),
        (TimeoutError("secret"), grpc.StatusCode.INTERNAL, "internal error, see the server's log"),
        (ConnectionResetError("secret"), grpc.StatusCode.INTERNAL, "internal error, see the server's log"),
    ],
)
async def test_each_exception_becomes_a_status(error, code, details):
    assert (await outcome(error))[:2] == (code, details)


async def test_an_error_of_the_disk_is_told_and_logged(caplog):
    with caplog.at_level(logging.ERROR, "puna.rpc.error_boundary"):
        code, details, _ = await outcome(OSError(28, "No space left on device"))
    assert "no space left on device" in details
    assert code is not grpc.StatusCode.INTERNAL
    assert "handler failed: " in caplog.text


async def test_an_unexpected_error_is_logged_without_its_text(caplog):
    with caplog.at_level(logging.ERROR, "puna.rpc.error_boundary"):
        await outcome(ValueError("the prompt of a user"))
    assert "ValueError" in caplog.text
    assert "the prompt of a user" not in caplog.text


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_long_text_goes_whole_to_clients_that_ask_for_it(wanted):
    name = "m" * 3000
    metadata = (("puna-long-errors", "1"),) if wanted else ()
    _, details, trailing = await outcome(ModelNotFoundError(name), metadata=metadata)
    assert len(details) < 3000
    assert (name.encode() in trailing.get("puna-error-bin", b"")) is wanted


async def test_a_cancelled_call_stays_cancelled():
    @unary
    async def handler(_servicer, _request, _context):
        await asyncio.sleep(30)

    context = Context()
    task = asyncio.create_task(handler(None, None, context))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.status is None


async def test_the_cancellation_of_another_task_is_an_internal_error():
    assert (await outcome(asyncio.CancelledError()))[0] is grpc.StatusCode.INTERNAL
    assert not cancelled()


async def test_no_status_can_be_sent_to_a_client_that_has_left():
    with pytest.raises(asyncio.CancelledError):
        await end(Context(gone=True), grpc.StatusCode.INTERNAL, "text")


async def test_a_failed_call_does_not_keep_its_request():
    class Request:
        pass

    kept = []

    @unary
    async def handler(_servicer, request, _context):
        kept.append(weakref.ref(request))
        error = ModelNotFoundError("m")
        kept.append(error)
        raise error

    gc.disable()
    try:
        with pytest.raises(Aborted) as caught:
            await handler(None, Request(), Context())
        del caught
        assert kept[1].__traceback__ is None
    finally:
        gc.enable()
