"""gRPC clients read Puna's own words, and the variables of an error."""

import grpc
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from puna.auth.errors import QuotaExceededError, RateLimitedError
from puna.errors import (
    BackendCrashedError,
    BlobNotFoundError,
    CloudDisabledError,
    ContextOverflowError,
    EmbeddingsUnsupportedError,
    EngineRefusedError,
    InvalidRequestError,
    LoadFailedError,
    MediaUnsupportedError,
    ModelNotFoundError,
    PunaError,
    QueueFullError,
    TemplateRefusedError,
    ToolsRefusedError,
)
from puna.rpc.status import DETAILS, LONG_ERROR, trailers
from puna.rpc.wording import words
from puna.runtime.host_model import CRASHED
from puna.runtime.host_process import terminated
from puna.serving.sequence_builder import NO_MEDIA
from puna.serving.sequence_runner import overflow_text
from puna_client.v1 import chat_pb2, generate_pb2, message_pb2

ERRORS = (
    EmbeddingsUnsupportedError(),
    QueueFullError(),
    CloudDisabledError(),
    MediaUnsupportedError(),
    EngineRefusedError(NO_MEDIA),
    TemplateRefusedError("the roles must alternate"),
    ToolsRefusedError("a tool has no name"),
    ContextOverflowError(overflow_text(9, 8)),
    ContextOverflowError(overflow_text(9, 8, at_least=True)),
    BackendCrashedError(f"{CRASHED}: SIGSEGV"),
    LoadFailedError(terminated("exit status 1: no such file")),
    LoadFailedError("timed out waiting for llama-server to start"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_words_are_no_others(error):
    text = words(error)
    assert text
    for theirs in ("{", "ollama server", "llama-server", "ollama cloud", "--embeddings", "mmproj"):
        assert theirs not in text


def test_what_was_said_stays():
    assert words(TemplateRefusedError("the roles must alternate")) == "the roles must alternate"
    assert words(BackendCrashedError(f"{CRASHED}: SIGSEGV")) == "the host process of the model has ended: SIGSEGV"
    assert "at least 9 tokens" in words(ContextOverflowError(overflow_text(9, 8, at_least=True)))
    assert words(EngineRefusedError('{"error":{broken')) == '{"error":{broken'


def details(error, *, whole_text=False):
    found = dict(trailers(error, whole_text=whole_text))
    kinds = {}
    for each in Status.FromString(found[DETAILS]).details:
        kind = getattr(error_details_pb2, each.type_url.rpartition(".")[2])
        kinds[kind.__name__] = kind.FromString(each.value)
    return kinds, found


def test_the_variables_are_in_the_metadata():
    kinds, _ = details(ContextOverflowError(overflow_text(9, 8)))
    assert dict(kinds["ErrorInfo"].metadata) == {"prompt_tokens": "9", "context_length": "8"}
    kinds, _ = details(PunaError("odd", model="m" * 10_000))
    assert len(kinds["ErrorInfo"].metadata["model"]) == 256


def test_details_of_their_kinds():
    kinds, _ = details(InvalidRequestError("top_p: 7 is not between 0 and 1", field="options.sampling.top_p"))
    (violation,) = kinds["BadRequest"].field_violations
    assert (violation.field, violation.description) == ("options.sampling.top_p", "top_p: 7 is not between 0 and 1")
    assert "field" not in kinds["ErrorInfo"].metadata
    kinds, _ = details(ModelNotFoundError("none"))
    assert (kinds["ResourceInfo"].resource_type, kinds["ResourceInfo"].resource_name) == ("model", "none")
    kinds, _ = details(BlobNotFoundError("gone", digest="sha256:0"))
    assert (kinds["ResourceInfo"].resource_type, kinds["ResourceInfo"].resource_name) == ("blob", "sha256:0")
    for error in (RateLimitedError("slow down", 1.5), QuotaExceededError(5, 1.5)):
        kinds, _ = details(error)
        assert kinds["RetryInfo"].retry_delay.seconds == 2
        assert len(kinds["QuotaFailure"].violations) == 1
    assert details(QueueFullError())[0]["RetryInfo"].retry_delay.seconds == 1


def test_the_bridge_gets_the_text_of_ollama():
    _, found = details(EmbeddingsUnsupportedError(), whole_text=True)
    assert found[LONG_ERROR].decode() == str(EmbeddingsUnsupportedError())


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (chat_pb2.ChatRequest(tools=[message_pb2.Tool(name="a", parameters_json="{")]), "tools[0].parameters_json"),
        (chat_pb2.ChatRequest(tools=[message_pb2.Tool(name="a", items_json="{")]), "tools[0].items_json"),
        (
            chat_pb2.ChatRequest(
                messages=[message_pb2.ChatMessage(role="a", tool_calls=[message_pb2.ToolCall(arguments_json="[1")])]
            ),
            "tool_calls.arguments_json",
        ),
        (generate_pb2.GenerateRequest(options={"options_json": "{"}), "options_json"),
        (generate_pb2.GenerateRequest(options={"sampling": {"top_p": 7}}), "options.sampling.top_p"),
        (generate_pb2.GenerateRequest(options={"sampling": {"temperature": -5}}), "options.sampling.temperature"),
        (
            generate_pb2.GenerateRequest(options={"backend_options_json": {"played": "{"}}),
            "backend_options_json['played']",
        ),
    ],
)
async def test_what_a_client_sends_is_never_an_internal_error(stubs, request_, field):
    request_.model = "plain"
    method = stubs.chat.Chat if isinstance(request_, chat_pb2.ChatRequest) else stubs.generate.Generate
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await method(request_)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = Status.FromString(dict(failed.value.trailing_metadata())[DETAILS])
    violation = error_details_pb2.BadRequest()
    info = error_details_pb2.ErrorInfo()
    for each in status.details:
        each.Unpack(violation) or each.Unpack(info)
    assert [each.field for each in violation.field_violations] == [field]
    assert info.metadata["model"] == "plain"
