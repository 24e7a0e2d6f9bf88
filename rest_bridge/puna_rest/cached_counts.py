"""Whom the /v1 routes tell how many tokens of a prompt were cached.

Ollama counts no cached tokens there, and its answers leave the fields out or write zeros. Clients of OpenAI's and
Anthropic's APIs read the counts, and get them (puna_rest.api_clients). Others get Ollama's bytes, unless the prompt has
as many tokens as OpenAI counts from: Ollama's users then see the counts too.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from aiohttp import web

from puna_client.v1 import chat_pb2, generate_pb2, usage_pb2
from puna_rest.api_clients import is_api_client

Message = TypeVar("Message", chat_pb2.StreamChatResponse, generate_pb2.StreamGenerateResponse)

LEAST_TOKENS: Final = 1024
"""Tokens of a prompt from which OpenAI's API counts cached ones."""


def settle(request: web.BaseRequest, finish: usage_pb2.Finish) -> None:
    """Remove the count of cached tokens from the end of an answer if the client gets Ollama's bytes."""
    if finish.usage.prompt_tokens < LEAST_TOKENS and not is_api_client(request):
        finish.usage.cached_prompt_tokens = 0


def settled(request: web.BaseRequest, write: Callable[[Message], str]) -> Callable[[Message], str]:
    """Return a writer that settles the end of a stream before it is written."""

    def settle_and_write(message: Message) -> str:
        if message.HasField("done") and message.done.HasField("finish"):
            settle(request, message.done.finish)
        return write(message)

    return settle_and_write
