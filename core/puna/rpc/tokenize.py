"""TokenizeService."""

from puna.rpc import bounds, convert
from puna.rpc.error_boundary import Context, unary
from puna.rpc.observe import observed
from puna.serving.core import Serving
from puna.v1 import tokenize_pb2, tokenize_pb2_grpc


class TokenizeServicer(tokenize_pb2_grpc.TokenizeServiceServicer):
    """Serves TokenizeService."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @unary
    async def Tokenize(self, request: tokenize_pb2.TokenizeRequest, context: Context) -> tokenize_pb2.TokenizeResponse:
        """Tokenize a text."""
        with observed(self._serving.activity, request.model, "Tokenize"):
            bounds.check_options(request.options, self._serving.settings.limits)
            tokens = await self._serving.tokenize(
                request.model,
                request.text,
                # Both default to true, which protobuf cannot express for a boolean.
                add_special=request.add_special if request.HasField("add_special") else True,
                parse_special=request.parse_special if request.HasField("parse_special") else True,
                with_pieces=request.with_pieces,
                options=convert.request_options(request.options),
            )
        return tokenize_pb2.TokenizeResponse(
            token_ids=tokens.ids, pieces=tokens.pieces, context_length=tokens.context_length
        )

    @unary
    async def Detokenize(
        self, request: tokenize_pb2.DetokenizeRequest, context: Context
    ) -> tokenize_pb2.DetokenizeResponse:
        """Return the text of tokens."""
        with observed(self._serving.activity, request.model, "Detokenize"):
            bounds.check_detokenize(request, self._serving.settings.limits)
            raw = await self._serving.detokenize(
                request.model,
                request.token_ids,
                special=not request.skip_special,
                options=convert.request_options(request.options),
            )
        return tokenize_pb2.DetokenizeResponse(text=raw.decode(errors="replace"), raw=raw)
