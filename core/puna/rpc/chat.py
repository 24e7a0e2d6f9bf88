"""ChatService."""

from dataclasses import replace

from puna.offload import offload_if_heavy, weight_of_message
from puna.rpc import answers, bounds, convert
from puna.rpc.error_boundary import Context, streaming, unary
from puna.rpc.observe import observed
from puna.rpc.streams import collected, weight_of_deltas, written
from puna.serving.answers import Event
from puna.serving.core import Serving
from puna.serving.requests import ChatRequest
from puna_client.v1 import chat_pb2, chat_pb2_grpc


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    """Serves ChatService."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @unary
    async def Chat(self, request: chat_pb2.ChatRequest, context: Context) -> chat_pb2.ChatResponse:
        """Answer a conversation in one message."""
        with observed(self._serving.activity, request.model, "Chat") as entry:
            # A complete answer has complete calls alone.
            asked = replace(await self._asked(request), tool_call_deltas=False)
            deltas, done = await collected(self._serving.chat(asked, entry.on_progress), entry)
        # Outside of `observed`: the model's work is over, and a cancellation by id would find nothing to stop.
        return await offload_if_heavy(weight_of_deltas(deltas), answers.full_chat_response, deltas, done)

    @streaming
    async def StreamChat(self, request: chat_pb2.ChatRequest, context: Context) -> None:
        """Answer a conversation in deltas, as tokens are decoded."""
        with observed(self._serving.activity, request.model, "StreamChat") as entry:
            asked = await self._asked(request)
            await written(
                lambda tell: self._serving.chat(asked, tell),
                _filled,
                context,
                entry,
                omit_progress=request.options.omit_progress,
            )

    async def _asked(self, request: chat_pb2.ChatRequest) -> ChatRequest:
        limits = self._serving.settings.limits
        bounds.check_chat(request, limits)
        asked = await offload_if_heavy(weight_of_message(request), convert.chat_request, request)
        bounds.check_stops(asked.options.values.get("stop"), limits)
        return asked


def _filled(events: list[Event], message: chat_pb2.StreamChatResponse | None = None, /) -> chat_pb2.StreamChatResponse:
    message = chat_pb2.StreamChatResponse() if message is None else message
    return answers.filled(message, events, answers.fill_chat_delta, answers.chat_done)
