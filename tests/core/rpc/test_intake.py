"""Calls whose client leaves before its message has come."""

import asyncio

import grpc
import grpc.aio
import pytest

from puna.limits import Limits
from puna.rpc.intake import Intake
from puna_client.v1 import chat_pb2


class Gone:
    """The context of a call whose client has just left: nothing can be received or sent."""

    async def read(self):
        return grpc.aio.EOF

    async def abort(self, *_):
        raise grpc.aio.InternalError("Failed to execute a batch")


async def never(request, context):
    raise AssertionError("there is no message")


async def test_a_call_whose_client_has_left_is_cancelled_without_an_error():
    handler = grpc.unary_unary_rpc_method_handler(never, chat_pb2.ChatRequest.FromString)
    served = Intake(Limits()).serving(handler)
    with pytest.raises(asyncio.CancelledError):
        await served.stream_unary(None, Gone())
