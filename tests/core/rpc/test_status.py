import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from puna import errors
from puna.auth.errors import RateLimitedError
from puna.errors import PunaError
from puna.rpc.status import DETAILS, LONG_ERROR, LONGEST_TEXT, PUSHBACK, code_of, short, trailers


def kinds(kind=PunaError):
    yield kind
    for each in kind.__subclasses__():
        yield from kinds(each)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ModelNotFoundError("m"), grpc.StatusCode.NOT_FOUND),
        (errors.InvalidModelNameError(), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.CapabilityMissingError("no"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.OptionTypeError("a", "type integer"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.QueueFullError(), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.EmbeddingsUnsupportedError(), grpc.StatusCode.UNIMPLEMENTED),
        (errors.OutOfMemoryError("no room"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.BackendCrashedError("SIGKILL"), grpc.StatusCode.UNAVAILABLE),
        (errors.CloudDisabledError(), grpc.StatusCode.PERMISSION_DENIED),
    ],
)
def test_codes(error, code):
    assert code_of(error) is code


def test_only_the_base_itself_is_internal_by_default():
    internal = {kind for kind in kinds() if code_of(kind.__new__(kind)) is grpc.StatusCode.INTERNAL}
    assert {each for each in internal if each.__module__ == "puna.errors"} == {PunaError, errors.BackendFailedError}


def unpacked(found):
    (name, raw), *rest = found
    assert name == DETAILS
    return Status.FromString(raw), dict(rest)


def test_details_tell_the_reason():
    status, rest = unpacked(trailers(errors.ModelNotFoundError("m"), whole_text=False))
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("puna", "MODEL_NOT_FOUND")
    assert status.message == "model 'm' not found"
    assert rest == {}


def test_a_full_queue_tells_when_to_come_back():
    status, _ = unpacked(trailers(errors.QueueFullError(), whole_text=False))
    retry = RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 1


@pytest.mark.parametrize(
    ("error", "pushback"),
    [
        (errors.QueueFullError(), "1000"),
        (RateLimitedError("too fast", 2.2), "3000"),
        (RateLimitedError("come tomorrow", 3600), "-1"),
        (errors.TooLargeError("too large"), "-1"),
        (errors.BackendCrashedError("SIGKILL"), None),
        (errors.ModelNotFoundError("m"), None),
    ],
)
def test_retry_policies_are_told_when_to_repeat_a_call(error, pushback):
    assert dict(trailers(error, whole_text=False)).get(PUSHBACK) == pushback


def test_long_texts_are_cut_unless_the_client_takes_them():
    text = "ü" * 20_000
    status, rest = unpacked(trailers(errors.InvalidRequestError(text), whole_text=True))
    assert len(status.message.encode()) <= LONGEST_TEXT
    assert status.message.endswith("…")
    assert rest[LONG_ERROR].decode() == text


def test_short_texts_stay():
    assert short("ä" * 512) == "ä" * 512
    assert len(short("ä" * 513).encode()) <= LONGEST_TEXT


@pytest.mark.parametrize("early", [False, True])
def test_whether_it_came_up_before_the_run(early):
    error = errors.InvalidFormatError("no")
    error.early = early
    packed = dict(trailers(error, whole_text=False))[DETAILS]
    info = ErrorInfo()
    assert Status.FromString(packed).details[0].Unpack(info)
    assert dict(info.metadata) == ({"early": "1"} if early else {})
