import grpc
import grpc.aio
import pytest

from puna.cli.client import connected, not_found, text_of, unreachable
from puna.cli.errors import CommandError
from puna.settings import Settings

SETTINGS = Settings(grpc_host="127.0.0.1:1")


def failed(code, details):
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, nothing, nothing, details)


@pytest.mark.parametrize(
    ("code", "details", "text"),
    [
        (
            grpc.StatusCode.UNAVAILABLE,
            "failed to connect to all addresses",
            "could not connect to the server at 127.0.0.1:1, run 'puna serve' to start it",
        ),
        (grpc.StatusCode.UNAVAILABLE, "the server is shutting down", "the server is shutting down"),
        (grpc.StatusCode.NOT_FOUND, "model 'm' not found", "model 'm' not found"),
        (grpc.StatusCode.UNKNOWN, "", "UNKNOWN"),
    ],
)
def test_texts_for_users(code, details, text):
    error = failed(code, details)
    assert text_of(error, SETTINGS) == text
    assert not_found(error) is (code is grpc.StatusCode.NOT_FOUND)
    assert unreachable(error) is text.startswith("could not connect")


def test_an_error_of_the_server_itself_is_told_whatever_its_text_is():
    details = grpc.aio.Metadata(("grpc-status-details-bin", b""))
    text = "Ray cannot be used: Failed to connect to Ray cluster at 10.0.0.1:6379"
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), details, text)
    assert text_of(error, SETTINGS) == text
    assert not unreachable(error)


async def test_a_failed_call_is_an_error_of_the_command():
    with pytest.raises(CommandError, match=r"^could not connect to the server at 127\.0\.0\.1:1") as caught:
        async with connected(SETTINGS) as channel:
            await channel.unary_unary("/puna.v1.ServerService/GetServerInfo")(b"")
    assert unreachable(caught.value.__cause__)
