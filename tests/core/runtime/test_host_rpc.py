import grpc
import grpc.aio
import pytest

from puna.backend import InvalidRequestError, UnsupportedError
from puna.backend.v1 import backend_pb2 as wire
from puna.errors import BackendFailedError
from puna.host import convert
from puna.runtime.errors import ContractVersionError
from puna.runtime.host_rpc import described, error_of


def failed(code, details="details", *metadata):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details)


class Stub:
    """A host that answers Describe."""

    def __init__(self, answer):
        self.answer = answer

    async def Describe(self, request):  # noqa: N802 (as gRPC calls it)
        assert request.min_contract_version <= request.max_contract_version
        if isinstance(self.answer, Exception):
            raise self.answer
        return wire.DescribeResponse(contract_version=self.answer)


@pytest.mark.parametrize("answer", [1, failed(grpc.StatusCode.UNIMPLEMENTED)])
async def test_version_1_is_spoken_with_and_without_the_handshake(answer):
    await described(Stub(answer), "echo")


@pytest.mark.parametrize("version", [0, 2, 99, -1])
async def test_another_version_is_refused_in_words(version):
    with pytest.raises(ContractVersionError) as error:
        await described(Stub(version), "echo")
    assert str(error.value) == (
        f"unable to load model: backend 'echo' speaks version {version} of the plugin contract, and this server speaks "
        "version 1; install a release of the backend, or of Puna, that fits"
    )


async def test_another_error_of_the_handshake_is_passed_on():
    with pytest.raises(grpc.aio.AioRpcError):
        await described(Stub(failed(grpc.StatusCode.UNAVAILABLE)), "echo")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (grpc.StatusCode.UNIMPLEMENTED, UnsupportedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, BackendFailedError),
        (grpc.StatusCode.UNKNOWN, BackendFailedError),
    ],
)
def test_a_status_without_a_failure_is_read_by_its_code(code, kind):
    error = error_of(failed(code))
    assert (type(error), str(error)) == (kind, "details")


def test_a_failure_says_more_than_the_status():
    failure = wire.Failure(kind=wire.Failure.KIND_INVALID, message="not this")
    error = error_of(failed(grpc.StatusCode.INTERNAL, "", (convert.FAILURE_KEY, failure.SerializeToString())))
    assert (type(error), str(error)) == (InvalidRequestError, "not this")


def test_a_failure_that_cannot_be_read_is_left_out():
    error = error_of(failed(grpc.StatusCode.INTERNAL, "broken", (convert.FAILURE_KEY, b"\xff\xff")))
    assert (type(error), str(error)) == (BackendFailedError, "broken")
