"""Translation of requests from protobuf messages to dataclasses of puna.serving."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Final

from puna.auth.caller import Caller, current
from puna.errors import InvalidRequestError
from puna.messages import Message, Think, ToolCall, ToolChoice
from puna.models.create.request import CreateRequest
from puna.rpc import json_fields
from puna.rpc.json_fields import json_object
from puna.serving.requests import (
    BACKGROUND_PRIORITY,
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    OutputConstraint,
    RequestOptions,
    RerankRequest,
    ScoreRequest,
)
from puna_client.v1 import chat_pb2, embed_pb2, generate_pb2, message_pb2, models_pb2, options_pb2, rank_pb2

_OPTION_NAMES: Final = {"max_output_tokens": "num_predict"}
# Derived from the message, so that a new sampling field works once puna.options knows its name.
_SAMPLING: Final = {
    name: _OPTION_NAMES.get(name, name)
    for name in options_pb2.SamplingOptions.DESCRIPTOR.fields_by_name
    if name not in ("stop", "replace_stop", "logit_bias")
}
"""Names of options by fields of SamplingOptions. Most are equal."""
_RUNTIME: Final = {
    "context_length": "num_ctx",
    "batch_size": "num_batch",
    "gpu_layers": "num_gpu",
    "main_gpu": "main_gpu",
    "use_mmap": "use_mmap",
    "threads": "num_thread",
    "draft_tokens": "draft_num_predict",
}
_LONGEST_SECONDS: Final = 100 * 365 * 86_400
"""A keep-alive of a century or more counts as endless. Timers of the event loop cannot hold longer ones."""
_THINKING: Final[Mapping[int, Think | None]] = {
    options_pb2.THINKING_LEVEL_UNSPECIFIED: None,
    options_pb2.THINKING_LEVEL_OFF: Think(on=False),
    options_pb2.THINKING_LEVEL_ON: Think(on=True),
    options_pb2.THINKING_LEVEL_LOW: Think(on=True, level="low"),
    options_pb2.THINKING_LEVEL_MEDIUM: Think(on=True, level="medium"),
    options_pb2.THINKING_LEVEL_HIGH: Think(on=True, level="high"),
    options_pb2.THINKING_LEVEL_MAX: Think(on=True, level="max"),
}


def generate_request(wire: generate_pb2.GenerateRequest) -> GenerateRequest:
    """Return a completion request. Raises InvalidRequestError."""
    by_ids = wire.WhichOneof("prompt") == "token_ids"
    if by_ids and not wire.raw:
        raise InvalidRequestError("a prompt of token ids needs raw", field="raw")
    return GenerateRequest(
        model=wire.model,
        prompt=tuple(wire.token_ids.ids) if by_ids else wire.text,
        suffix=wire.suffix,
        system=wire.system,
        template=wire.template,
        raw=wire.raw,
        media=tuple(each.data for each in wire.media),
        context=tuple(wire.context.ids) if wire.HasField("context") else None,
        n=wire.n if wire.HasField("n") else 1,
        render_only=wire.render_only,
        options=request_options(wire.options),
    )


def chat_request(wire: chat_pb2.ChatRequest) -> ChatRequest:
    """Return a chat request. Raises InvalidRequestError."""
    return ChatRequest(
        model=wire.model,
        messages=messages(wire.messages),
        tools=json_fields.tools(wire.tools),
        tool_choice=_tool_choice(wire.tool_choice),
        tool_call_deltas=wire.tool_call_deltas,
        n=wire.n if wire.HasField("n") else 1,
        render_only=wire.render_only,
        options=request_options(wire.options),
    )


def embed_request(wire: embed_pb2.EmbedRequest) -> EmbedRequest:
    """Return an embedding request. Raises InvalidRequestError."""
    return EmbedRequest(
        model=wire.model,
        inputs=tuple(wire.inputs),
        truncate=wire.truncate,
        dimensions=wire.dimensions,
        raw=wire.unnormalized,
        options=request_options(wire.options),
    )


def rerank_request(wire: rank_pb2.RerankRequest) -> RerankRequest:
    """Return a ranking request. Raises InvalidRequestError."""
    return RerankRequest(
        model=wire.model,
        query=wire.query,
        documents=tuple(wire.documents),
        top_n=wire.top_n,
        truncate=wire.truncate,
        options=request_options(wire.options),
    )


def score_request(wire: rank_pb2.ScoreRequest) -> ScoreRequest:
    """Return a scoring request. Raises InvalidRequestError."""
    by_ids = wire.WhichOneof("context") == "token_ids"
    return ScoreRequest(
        model=wire.model,
        context=tuple(wire.token_ids.ids) if by_ids else wire.text,
        continuations=tuple(
            tuple(each.token_ids.ids) if each.WhichOneof("content") == "token_ids" else each.text
            for each in wire.continuations
        ),
        options=request_options(wire.options),
    )


def messages(wire: Sequence[message_pb2.ChatMessage]) -> tuple[Message, ...]:
    """Return the messages of a conversation. Raises InvalidRequestError."""
    return tuple([_message(each, f"messages[{index}]") for index, each in enumerate(wire)])


def _message(wire: message_pb2.ChatMessage, path: str) -> Message:
    content, media = wire.content, tuple([each.data for each in wire.media])
    places: tuple[int, ...] = ()
    if wire.parts:
        if content or media:
            raise InvalidRequestError(
                f"{path}.parts stands in place of content and media: give one or the other", field=f"{path}.parts"
            )
        content, media, places = _joined(wire.parts, path)
    return Message(
        role=wire.role,
        content=content,
        thinking=wire.thinking,
        media=media,
        media_at=places,
        tool_calls=tuple(
            ToolCall(
                name=call.name,
                arguments=json_fields.arguments(call.arguments_json),
                index=call.index,
                id=call.id,
            )
            for call in wire.tool_calls
        ),
        tool_name=wire.tool_name,
        tool_call_id=wire.tool_call_id,
    )


def _joined(parts: Sequence[message_pb2.ContentPart], path: str) -> tuple[str, tuple[bytes, ...], tuple[int, ...]]:
    """Return the text of parts, their media, and where these stand in the text."""
    texts: list[str] = []
    media: list[bytes] = []
    places: list[int] = []
    length = 0
    for index, part in enumerate(parts):
        match part.WhichOneof("kind"):
            case "text":
                texts.append(part.text)
                length += len(part.text)
            case "media":
                media.append(part.media.data)
                places.append(length)
            case _:
                name = f"{path}.parts[{index}]"
                raise InvalidRequestError(f"{name} has neither text nor media", field=name)
    return "".join(texts), tuple(media), tuple(places)


def request_options(wire: options_pb2.RequestOptions) -> RequestOptions:
    """Return the options of a request: sampling, runtime, structured output and others. Raises InvalidRequestError."""
    # Typed fields are put over the JSON: a client that sets both means the typed one.
    values = json_object(wire.options_json, "options_json")
    for message, names in ((wire.sampling, _SAMPLING), (wire.runtime, _RUNTIME)):
        # ListFields has the set fields only, so a field that is set to 0 differs from one that is not set.
        given = {descriptor.name: value for descriptor, value in message.ListFields()}
        values |= {ours: given[theirs] for theirs, ours in names.items() if theirs in given}
    # An empty repeated field cannot be told from a missing one. `replace_stop` removes the model's own stop strings.
    if wire.sampling.stop or wire.sampling.replace_stop:
        values["stop"] = list(wire.sampling.stop)
    if wire.HasField("keep_tokens"):
        values["num_keep"] = wire.keep_tokens
    caller = current()
    # The bridge in this process knows when its request arrived. Others could give themselves any duration.
    started = {"start_ns": _moment(wire)} if wire.HasField("start_time") and caller.bridge else {}
    return RequestOptions(
        values=values,
        logit_bias=_logit_bias(wire.sampling.logit_bias),
        truncate=wire.truncate,
        shift=wire.shift if wire.HasField("shift") else None,
        constraint=_constraint(wire.constraint),
        think=_THINKING.get(wire.thinking),
        think_if_possible=wire.thinking_if_possible,
        thinking_budget=wire.thinking_budget if wire.HasField("thinking_budget") else None,
        logprobs=wire.logprobs,
        top_logprobs=wire.top_logprobs,
        # A batch must not unload a model that others use.
        keep_alive=_keep_alive(wire.keep_alive) if wire.HasField("keep_alive") and not caller.background else None,
        priority=_priority(wire, caller),
        cache_salt=wire.cache_salt,
        backend_options={
            name: json_object(text, f"backend_options_json[{name!r}]")
            for name, text in wire.backend_options_json.items()
        },
        **started,
    )


def _priority(wire: options_pb2.RequestOptions, caller: Caller) -> int:
    if caller.background:
        return BACKGROUND_PRIORITY
    return max(wire.priority, BACKGROUND_PRIORITY + 1) if caller.may_prioritise else 0


def _constraint(wire: options_pb2.OutputConstraint) -> OutputConstraint | None:
    kind = wire.WhichOneof("kind")
    if kind is None or (kind == "json_object" and not wire.json_object):
        return None
    if kind == "json_object":
        return OutputConstraint("json_object")
    if kind == "choices":
        if not wire.choices.values:
            raise InvalidRequestError("choices are empty", field="options.constraint.choices")
        # JSON strings, one after the other, are also literals of a Lark grammar.
        return OutputConstraint("lark", "start: " + " | ".join(json.dumps(each) for each in wire.choices.values))
    text: str = getattr(wire, kind)
    # Ollama takes an empty, null or "" format for no format at all.
    if kind == "json_schema":
        if text.strip() in ("", "null", '""'):
            return None
        json_fields.check_schema_depth(text)
    elif kind != "regex" and not text.strip():
        raise InvalidRequestError(f"the grammar in {kind} is empty", field=f"options.constraint.{kind}")
    return OutputConstraint(kind, text)


def _keep_alive(wire: options_pb2.KeepAlive) -> float | None:
    kind = wire.WhichOneof("kind")
    if kind == "forever":
        return math.inf if wire.forever else None
    if kind is None:
        return None
    try:
        seconds = wire.duration.ToNanoseconds() / 1e9
    except ValueError as error:
        raise InvalidRequestError(f"keep_alive is no duration: {error}", field="options.keep_alive") from error
    # A negative keep-alive means for good in Ollama.
    return math.inf if seconds < 0 or seconds > _LONGEST_SECONDS else seconds


def _moment(wire: options_pb2.RequestOptions) -> int:
    """Return the arrival time in nanoseconds since 1970. A time in the future counts as now."""
    try:
        # The sender's clock may be ahead, which would give negative durations.
        return min(wire.start_time.ToNanoseconds(), time.time_ns())
    except ValueError as error:
        raise InvalidRequestError(f"start_time is no moment: {error}", field="options.start_time") from error


def _logit_bias(wire: Mapping[int, float]) -> dict[int, float]:
    """Return the logit biases by token id. Minus infinity forbids a token; other biases must be finite."""
    # NaN would make the sampler's comparisons meaningless in native code.
    if any(not math.isfinite(bias) and bias != -math.inf for bias in wire.values()):
        raise InvalidRequestError(
            "every logit_bias must be finite, or minus infinity", field="options.sampling.logit_bias"
        )
    return dict(wire)


def _tool_choice(wire: message_pb2.ToolChoice) -> ToolChoice:
    if wire.WhichOneof("choice") == "tool_name":
        return ToolChoice("required", wire.tool_name)
    if wire.mode == message_pb2.ToolChoice.MODE_NONE:
        return ToolChoice("none")
    return ToolChoice("required" if wire.mode == message_pb2.ToolChoice.MODE_REQUIRED else "auto")


def create_request(wire: models_pb2.CreateModelRequest) -> CreateRequest:
    """Return a creation request. Raises InvalidRequestError."""
    return CreateRequest(
        name=wire.name,
        base=wire.from_model,
        # No files and an empty list of files are different requests, and only this flag tells them apart.
        files=_files(wire.files) if wire.has_files or wire.files else None,
        adapters=_files(wire.adapters),
        draft_files=_files(wire.draft_files),
        template=wire.template,
        system=wire.system,
        licenses=tuple(wire.licenses),
        parameters=json_object(wire.parameters_json, "parameters_json"),
        messages=_preset(messages(wire.messages)),
        quantize=wire.quantize,
        draft_quantize=wire.draft_quantize,
        renderer=wire.renderer,
        parser=wire.parser,
        requires=wire.requires,
        remote_host=wire.remote_host,
        info=json_object(wire.info_json, "info_json"),
        backend=wire.backend,
        format=wire.format,
        upstream=wire.upstream,
        backend_options=json_object(wire.backend_options_json, "backend_options_json"),
    )


def _preset(given: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the messages of a new model. InvalidRequestError: media have places, which the store has no field for."""
    for index, each in enumerate(given):
        if each.media_at:
            path = f"messages[{index}].parts"
            raise InvalidRequestError(f"{path}: a model keeps no order of media, so give content and media", field=path)
    return given


def _files(wire: Sequence[models_pb2.FileBlob]) -> dict[str, str]:
    files = {each.name: each.digest for each in wire}
    # A file that is silently left out would be missed only when the model is loaded.
    if len(files) != len(wire):
        raise InvalidRequestError("two files have the same name")
    return files
