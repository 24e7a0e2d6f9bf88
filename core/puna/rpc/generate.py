"""GenerateService."""

from puna.offload import offload_if_heavy, weight_of_message
from puna.rpc import answers, bounds, convert
from puna.rpc.error_boundary import Context, streaming, unary
from puna.rpc.observe import observed
from puna.rpc.streams import collected, weight_of_deltas, written
from puna.serving.answers import Event
from puna.serving.core import Serving
from puna.serving.requests import GenerateRequest
from puna_client.v1 import generate_pb2, generate_pb2_grpc


class GenerateServicer(generate_pb2_grpc.GenerateServiceServicer):
    """Serves GenerateService."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @unary
    async def Generate(self, request: generate_pb2.GenerateRequest, context: Context) -> generate_pb2.GenerateResponse:
        """Complete a prompt in one message."""
        with observed(self._serving.activity, request.model, "Generate") as entry:
            asked = await self._asked(request)
            deltas, done = await collected(self._serving.generate(asked, entry.on_progress), entry)
        # Outside of `observed`: the model's work is over, and a cancellation by id would find nothing to stop.
        return await offload_if_heavy(weight_of_deltas(deltas), answers.full_generate_response, deltas, done)

    @streaming
    async def StreamGenerate(self, request: generate_pb2.GenerateRequest, context: Context) -> None:
        """Complete a prompt in deltas, as tokens are decoded."""
        with observed(self._serving.activity, request.model, "StreamGenerate") as entry:
            asked = await self._asked(request)
            await written(
                lambda tell: self._serving.generate(asked, tell),
                _filled,
                context,
                entry,
                omit_progress=request.options.omit_progress,
            )

    async def _asked(self, request: generate_pb2.GenerateRequest) -> GenerateRequest:
        limits = self._serving.settings.limits
        bounds.check_generate(request, limits)
        asked = await offload_if_heavy(weight_of_message(request), convert.generate_request, request)
        bounds.check_stops(asked.options.values.get("stop"), limits)
        return asked


def _filled(
    events: list[Event], message: generate_pb2.StreamGenerateResponse | None = None, /
) -> generate_pb2.StreamGenerateResponse:
    message = generate_pb2.StreamGenerateResponse() if message is None else message
    return answers.filled(message, events, answers.fill_generate_delta, answers.generate_done)
