"""The calls that the clients offer: arguments to request, messages to result.

Each function here is a method of both clients, with the same arguments. It returns a description of the call, which a
client then makes. Everything that the API has beyond these methods is reached through the generated stubs:

    stub = puna_client.v1.chat_pb2_grpc.ChatServiceStub(client.channel)
    await stub.Chat(request, metadata=client.metadata)
"""

import json
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message as Wire

from puna_client.answers import Answer, Delta, Embeddings, OnProgress
from puna_client.interop.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from puna_client.messages import Conversation, Json, conversation, user
from puna_client.readers import AnswerReader, EmbeddingsReader, HealthReader, PullReader, Reader
from puna_client.v1 import chat_pb2, embed_pb2, generate_pb2, models_pb2
from puna_client.v1.message_pb2 import Tool, ToolChoice
from puna_client.v1.models_pb2 import GetModelResponse, JobProgress, Model
from puna_client.v1.options_pb2 import RequestOptions

Item = TypeVar("Item")
Result = TypeVar("Result")
_MODES: Final = {"auto": ToolChoice.MODE_AUTO, "none": ToolChoice.MODE_NONE, "required": ToolChoice.MODE_REQUIRED}


@dataclass(frozen=True)
class Unary(Generic[Result]):
    """A call with one answer."""

    path: str
    request: Wire
    response: type[Wire]
    result: Callable[[Any], Result]
    timeout: float | None


@dataclass(frozen=True)
class Listed(Generic[Item]):
    """A list that comes in pages, each by a call."""

    page: Callable[[str], Unary[tuple[list[Item], str]]]
    """Returns the call for the page of a token. The result is the items and the token of the next page, if any."""


@dataclass(frozen=True)
class Streamed(Generic[Item, Result]):
    """A call with a stream of messages."""

    path: str
    request: Wire
    response: type[Wire]
    reader: Reader[Item, Result]
    timeout: float | None


def chat(
    model: str,
    messages: Conversation,
    *,
    tools: Iterable[Tool] = (),
    tool_choice: str | None = None,
    schema: Mapping[str, Json] | None = None,
    options: RequestOptions | None = None,
    on_progress: OnProgress | None = None,
    timeout: float | None = None,
) -> Streamed[Delta, Answer]:
    """Continue a conversation, streamed.

    `tool_choice` is "auto", "none", "required" or the name of a tool. With a JSON Schema as `schema`, the answer is
    JSON that fits it. `on_progress` takes the progress of queue, load and prefill. With it, a call that fails is not
    repeated, since gRPC repeats no call that has received a message. `timeout` is in seconds.
    """
    request = chat_pb2.ChatRequest(
        model=model, messages=conversation(messages), tools=tools, options=_options(options, schema, on_progress)
    )
    if tool_choice in _MODES:
        request.tool_choice.mode = _MODES[tool_choice]
    elif tool_choice is not None:
        request.tool_choice.tool_name = tool_choice
    return Streamed(
        "/puna.v1.ChatService/StreamChat", request, chat_pb2.StreamChatResponse, AnswerReader(on_progress), timeout
    )


def generate(
    model: str,
    prompt: str,
    *,
    media: Iterable[bytes | Path] = (),
    suffix: str = "",
    raw: bool = False,
    schema: Mapping[str, Json] | None = None,
    options: RequestOptions | None = None,
    on_progress: OnProgress | None = None,
    timeout: float | None = None,
) -> Streamed[Delta, Answer]:
    """Complete a prompt, streamed.

    `raw`: whether the prompt goes to the model without a template. The other arguments are those of `chat`.
    """
    request = generate_pb2.GenerateRequest(
        model=model,
        text=prompt,
        media=user("", *media).media,
        suffix=suffix,
        raw=raw,
        options=_options(options, schema, on_progress),
    )
    path = "/puna.v1.GenerateService/StreamGenerate"
    return Streamed(path, request, generate_pb2.StreamGenerateResponse, AnswerReader(on_progress), timeout)


def embed(
    model: str,
    inputs: str | Iterable[str],
    *,
    dimensions: int = 0,
    truncate: bool = False,
    options: RequestOptions | None = None,
    timeout: float | None = None,
) -> Streamed["array[float]", Embeddings]:
    """Embed texts, any number of them.

    `dimensions`: how many values of each vector to keep; 0: all. `truncate`: whether a text that is longer than the
    context is cut instead of refused.
    """
    request = embed_pb2.EmbedRequest(
        model=model,
        inputs=[inputs] if isinstance(inputs, str) else inputs,
        dimensions=dimensions,
        truncate=truncate,
        encoding=embed_pb2.VECTOR_ENCODING_FLOAT32_LE,
        options=options,
    )
    path = "/puna.v1.EmbedService/StreamVectors"
    return Streamed(path, request, embed_pb2.StreamVectorsResponse, EmbeddingsReader(), timeout)


def _options(
    given: RequestOptions | None, schema: Mapping[str, Json] | None, on_progress: OnProgress | None
) -> RequestOptions:
    options = RequestOptions()
    if given is not None:
        options.CopyFrom(given)
    if schema is not None:
        options.constraint.json_schema = json.dumps(schema)
    options.omit_progress = on_progress is None
    return options


def pull(name: str, *, insecure: bool = False, timeout: float | None = None) -> Streamed[JobProgress, Model]:
    """Pull a model from a registry; stream the progress and return the model.

    A call that ends early is resumed by the next one.

    `insecure`: whether to use HTTP without TLS.
    """
    request = models_pb2.PullModelRequest(name=name, insecure=insecure)
    path = "/puna.v1.ModelsService/PullModel"
    return Streamed(path, request, models_pb2.PullModelResponse, PullReader(), timeout)


def list_models(*, timeout: float | None = None) -> Listed[Model]:
    """List the models of the store, newest first. `timeout` is that of each page."""

    def result(answer: models_pb2.ListModelsResponse) -> tuple[list[Model], str]:
        return list(answer.models), answer.next_page_token

    def page(token: str) -> Unary[tuple[list[Model], str]]:
        request = models_pb2.ListModelsRequest(page_token=token)
        return Unary("/puna.v1.ModelsService/ListModels", request, models_pb2.ListModelsResponse, result, timeout)

    return Listed(page)


def get_model(name: str, *, timeout: float | None = None) -> Unary[GetModelResponse]:
    """Describe a model."""
    request = models_pb2.GetModelRequest(name=name)
    return Unary("/puna.v1.ModelsService/GetModel", request, GetModelResponse, _whole, timeout)


def load_model(
    name: str, *, options: RequestOptions | None = None, timeout: float | None = None
) -> Unary[models_pb2.LoadModelResponse]:
    """Load a model. With `keep_alive.forever` in the options it stays loaded."""
    request = models_pb2.LoadModelRequest(name=name, options=options)
    return Unary("/puna.v1.ModelsService/LoadModel", request, models_pb2.LoadModelResponse, _whole, timeout)


def unload_model(name: str, *, timeout: float | None = None) -> Unary[models_pb2.UnloadModelResponse]:
    """Unload a model when its running requests are done."""
    request = models_pb2.UnloadModelRequest(name=name)
    return Unary("/puna.v1.ModelsService/UnloadModel", request, models_pb2.UnloadModelResponse, _whole, timeout)


def delete_model(name: str, *, timeout: float | None = None) -> Unary[models_pb2.DeleteModelResponse]:
    """Delete a model."""
    request = models_pb2.DeleteModelRequest(name=name)
    return Unary("/puna.v1.ModelsService/DeleteModel", request, models_pb2.DeleteModelResponse, _whole, timeout)


def health(model: str = "", *, timeout: float | None = None) -> Streamed[bool, bool]:
    """Stream whether the server takes requests, or with a name, whether the model is loaded. Each change is an item."""
    request = HealthCheckRequest(service=f"puna.v1/{model}" if model else "")
    return Streamed("/grpc.health.v1.Health/Watch", request, HealthCheckResponse, HealthReader(), timeout)


def _whole(answer: Any) -> Any:  # noqa: ANN401 - the type of `Unary.response`
    return answer
