import grpc
import grpc.aio
import pytest
from tools.list_reasons import kinds

from puna import errors
from puna.auth.errors import RateLimitedError
from puna.rpc.status import DETAILS, code_of, trailers
from puna_client import errors as client
from puna_client import reasons
from puna_client.errors import PunaError, from_rpc
from puna_client.interop.v1.status_pb2 import ErrorInfo, Status


def received(error):
    """Return what a client raises for an error of the server."""
    trailing = grpc.aio.Metadata(*trailers(error, whole_text=False))
    return from_rpc(grpc.aio.AioRpcError(code_of(error), grpc.aio.Metadata(), trailing, str(error)))


def failed(code, *details):
    return from_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*details), "text"))


def test_each_reason_of_the_server_has_a_class_below_that_of_its_status():
    for kind in kinds():
        made = PunaError.by_reason[kind.reason]
        status = client._BY_CODE[code_of(kind.__new__(kind))]
        assert issubclass(made, status)
        assert made is status or getattr(reasons, made.__name__) is made


def test_an_error_has_the_variables_of_its_text():
    error = received(errors.ModelNotFoundError("m"))
    assert isinstance(error, reasons.ModelNotFoundError)
    assert (error.code, error.reason, error.metadata["model"]) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "m")
    assert (str(error), error.retry_delay, error.field) == ("model 'm' not found", None, "")


def test_an_error_says_when_to_come_back_and_which_field_is_wrong():
    assert received(RateLimitedError("slow down", 2.5)).retry_delay == 3
    wrong = errors.InvalidRequestError("no")
    wrong.info["field"] = "options.sampling.top_p"
    assert received(wrong).field == "options.sampling.top_p"


def test_an_unknown_reason_is_an_error_of_its_status():
    status = Status()
    status.details.add(
        type_url="type.googleapis.com/google.rpc.ErrorInfo",
        value=ErrorInfo(reason="OF_A_LATER_VERSION", domain="puna").SerializeToString(),
    )
    error = failed(grpc.StatusCode.UNAVAILABLE, (DETAILS, status.SerializeToString()))
    assert (type(error), error.reason) == (client.UnavailableError, "OF_A_LATER_VERSION")


@pytest.mark.parametrize("details", [(), ((DETAILS, b"\xff"),), (("other", "x"),)], ids=["none", "damaged", "other"])
def test_an_error_without_details_is_one_of_its_status(details):
    error = failed(grpc.StatusCode.UNAVAILABLE, *details)
    assert (type(error), error.reason, dict(error.metadata)) == (client.UnavailableError, "", {})
    assert type(failed(grpc.StatusCode.UNKNOWN)) is PunaError
