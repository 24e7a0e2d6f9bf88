"""The names and attributes of spans: OpenTelemetry's conventions for generative AI and RPC, and Puna's own.

Numbers and short names only. Texts of prompts, answers and stop sequences are in `puna.tracing.content`.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from puna import events
from puna.request_log import LONGEST_NAME
from puna.serving.requests import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    RequestOptions,
    RerankRequest,
    ScoreRequest,
)
from puna_client.v1 import (
    chat_pb2,
    embed_pb2,
    generate_pb2,
    models_pb2,
    rank_pb2,
    tokenize_pb2,
)

Value: TypeAlias = str | int | float | bool | tuple[str, ...]
ReadRequest: TypeAlias = GenerateRequest | ChatRequest | EmbedRequest | RerankRequest | ScoreRequest

PROVIDER: Final = "puna"
SERVICES: Final = {
    method.name: service.full_name
    for module in (chat_pb2, embed_pb2, generate_pb2, models_pb2, rank_pb2, tokenize_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""The services of the methods whose requests are traced."""
OPERATIONS: Final = {
    "Generate": "text_completion",
    "StreamGenerate": "text_completion",
    "Chat": "chat",
    "StreamChat": "chat",
    "Embed": "embeddings",
    "StreamVectors": "embeddings",
    "StreamEmbed": "embeddings",
    # The conventions have no names for these.
    "Rerank": "rerank",
    "Score": "score",
    "Tokenize": "tokenize",
    "Detokenize": "detokenize",
    "CountTokens": "count_tokens",
}
"""The operations of methods that run a model. Other methods have none."""
_REALS: Final = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
}
_INTEGERS: Final = {"num_predict": "gen_ai.request.max_tokens", "seed": "gen_ai.request.seed"}
_COUNTS: Final = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "truncated_tokens": "puna.truncated_tokens",
    "draft_tokens": "puna.draft_tokens",
    "accepted_draft_tokens": "puna.accepted_draft_tokens",
    "vectors": "puna.vectors",
}


def name(began: events.RequestBegan) -> str:
    """Return the name of the span of a request: its operation and its model, or the full name of its method."""
    operation = OPERATIONS.get(began.method)
    if operation is None:
        return f"{SERVICES.get(began.method, PROVIDER)}/{began.method}"
    return f"{operation} {began.model[:LONGEST_NAME]}".rstrip()


def of_beginning(began: events.RequestBegan) -> dict[str, Value]:
    """Return the attributes that are known when a request begins. Samplers see these alone."""
    found: dict[str, Value] = {
        "rpc.system": "grpc",
        "rpc.service": SERVICES.get(began.method, ""),
        "rpc.method": began.method,
        "puna.request.id": began.id,
        "puna.key.name": began.key,
        "puna.batch.id": began.batch,
    }
    model = began.model[:LONGEST_NAME]
    if (operation := OPERATIONS.get(began.method)) is None:
        found["puna.model"] = model
    else:
        found |= {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": model,
            "gen_ai.response.id": began.id,
        }
    return {key: value for key, value in found.items() if value != ""}


def of_request(request: ReadRequest) -> dict[str, Value]:
    """Return the parameters of a request. Those that it does not set are left out."""
    found = _of_options(request.options)
    if isinstance(request, GenerateRequest | ChatRequest):
        constraint = request.options.constraint
        found["gen_ai.output.type"] = "json" if constraint and constraint.kind.startswith("json") else "text"
        if request.n != 1:
            found["gen_ai.request.choice.count"] = request.n
    elif isinstance(request, EmbedRequest):
        found["puna.inputs"] = len(request.inputs)
        if request.dimensions:
            found["gen_ai.embeddings.dimension.count"] = request.dimensions
    else:
        found["puna.inputs"] = len(request.documents if isinstance(request, RerankRequest) else request.continuations)
    return found


def _of_options(options: RequestOptions) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for option, value in options.values.items():
        # The values are as the client sent them, and checked only once the model is known.
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if option in _REALS:
            found[_REALS[option]] = float(value)
        elif option in _INTEGERS:
            # Attributes have 64 bits.
            found[_INTEGERS[option]] = max(min(int(value), (1 << 63) - 1), -(1 << 63))
    return found


def of_end(ended: events.RequestEnded) -> dict[str, Value]:
    """Return the attributes that are known when a request ends."""
    found: dict[str, Value] = {
        attribute: value for count, attribute in _COUNTS.items() if (value := getattr(ended, count))
    }
    if ended.reasons:
        found["gen_ai.response.finish_reasons"] = ended.reasons
    if ended.first_token_seconds:
        found["gen_ai.server.time_to_first_token"] = ended.first_token_seconds
    if ended.failed:
        found["error.type"] = ended.outcome
        found["puna.phase"] = ended.phase
    return found


def of_facts(facts: Mapping[str, str | int]) -> dict[str, Value]:
    """Return the facts of a stage as attributes."""
    return {f"puna.{fact}": value for fact, value in facts.items()}
