"""TokenizeService."""

from collections.abc import AsyncGenerator
from dataclasses import replace

from puna.errors import InvalidRequestError
from puna.offload import offload_if_heavy, weight_of_message
from puna.rpc import bounds, convert
from puna.rpc.error_boundary import Context, unary
from puna.rpc.observe import observed
from puna.rpc.streams import collected
from puna.serving.access import OnProgress
from puna.serving.answers import Event
from puna.serving.core import Serving
from puna_client.v1 import tokenize_pb2, tokenize_pb2_grpc


class TokenizeServicer(tokenize_pb2_grpc.TokenizeServiceServicer):
    """Serves TokenizeService."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @unary
    async def Tokenize(self, request: tokenize_pb2.TokenizeRequest, context: Context) -> tokenize_pb2.TokenizeResponse:
        """Tokenize a text."""
        with observed(self._serving.activity, request.model, "Tokenize") as entry:
            bounds.check_options(request.options, self._serving.settings.limits)
            tokens = await self._serving.tokenize(
                request.model,
                request.text,
                # Both default to true, which protobuf cannot express for a boolean.
                add_special=request.add_special if request.HasField("add_special") else True,
                parse_special=request.parse_special if request.HasField("parse_special") else True,
                with_pieces=request.with_pieces,
                options=convert.request_options(request.options),
                on_progress=entry.on_progress,
            )
        return tokenize_pb2.TokenizeResponse(
            token_ids=tokens.ids, pieces=tokens.pieces, context_length=tokens.context_length
        )

    @unary
    async def Detokenize(
        self, request: tokenize_pb2.DetokenizeRequest, context: Context
    ) -> tokenize_pb2.DetokenizeResponse:
        """Return the text of tokens."""
        with observed(self._serving.activity, request.model, "Detokenize") as entry:
            bounds.check_detokenize(request, self._serving.settings.limits)
            raw = await self._serving.detokenize(
                request.model,
                request.token_ids,
                special=not request.skip_special,
                options=convert.request_options(request.options),
                on_progress=entry.on_progress,
            )
        return tokenize_pb2.DetokenizeResponse(text=raw.decode(errors="replace"), raw=raw)

    @unary
    async def CountTokens(
        self, request: tokenize_pb2.CountTokensRequest, context: Context
    ) -> tokenize_pb2.CountTokensResponse:
        """Count the prompt tokens of a request."""
        kind = request.WhichOneof("request")
        if kind is None:
            raise InvalidRequestError("request is required", field="request")
        model = request.chat.model if kind == "chat" else request.generate.model
        with observed(self._serving.activity, model, "CountTokens") as entry:
            events = await (self._chat if kind == "chat" else self._generate)(request, entry.on_progress)
            _, done = await collected(events, entry)
        counted = done.counted
        assert counted is not None, "a request with count_only ends with the count"
        return tokenize_pb2.CountTokensResponse(
            prompt_tokens=counted.prompt_tokens,
            truncated_tokens=counted.truncated_tokens,
            context_length=counted.context_length,
            token_ids=counted.token_ids if request.with_token_ids else (),
        )

    async def _chat(self, request: tokenize_pb2.CountTokensRequest, tell: OnProgress) -> AsyncGenerator[Event]:
        chat = request.chat
        bounds.check_chat(chat, self._serving.settings.limits)
        # A request without input loads or unloads the model, and has no prompt to count.
        if not chat.messages:
            raise InvalidRequestError("chat.messages is empty", field="chat.messages")
        asked = await offload_if_heavy(weight_of_message(chat), convert.chat_request, chat)
        return self._serving.chat(replace(asked, render_only=False, count_only=True), tell)

    async def _generate(self, request: tokenize_pb2.CountTokensRequest, tell: OnProgress) -> AsyncGenerator[Event]:
        generate = request.generate
        bounds.check_generate(generate, self._serving.settings.limits)
        asked = await offload_if_heavy(weight_of_message(generate), convert.generate_request, generate)
        if not asked.prompt:
            raise InvalidRequestError("the prompt of generate is empty", field="generate.text")
        return self._serving.generate(replace(asked, render_only=False, count_only=True), tell)
