import pytest
from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.test_utils import make_mocked_request

from puna_rest import answers
from puna_rest.errors import Failure


def asking(method="GET", version=HttpVersion11):
    return make_mocked_request(method, "/", version=version)


@pytest.mark.parametrize(
    ("body", "method", "version", "chunked"),
    [
        ("a" * 2048, "GET", HttpVersion11, False),
        ("a" * 2049, "GET", HttpVersion11, True),
        ("€" * 683, "GET", HttpVersion11, True),
        ("€" * 682, "GET", HttpVersion11, False),
        ("a" * 2049, "HEAD", HttpVersion11, False),
        ("a" * 2049, "GET", HttpVersion10, False),
    ],
)
def test_bodies_above_what_go_buffers_have_no_length(body, method, version, chunked):
    assert answers.text(asking(method, version), body).chunked is chunked


def test_json_on_v1_ends_with_a_newline_and_names_no_charset():
    native, line = answers.json(asking(), {"a": "<"}), answers.json_line(asking(), {"a": "<"}, 201)
    assert (native.body, native.headers["Content-Type"]) == (b'{"a":"\\u003c"}', "application/json; charset=utf-8")
    assert (line.body, line.headers["Content-Type"]) == (b'{"a":"\\u003c"}\n', "application/json")
    assert (native.status, line.status, answers.empty(201).status) == (200, 201, 201)


@pytest.mark.parametrize(
    ("failure", "running", "content_type"),
    [
        (Failure(500, "no", "BACKEND_FAILED"), True, "application/json"),
        (Failure(500, "no", "BACKEND_FAILED", early=True), False, answers.JSON_UTF8),
        (Failure(500, "no", "LOAD_FAILED"), False, answers.JSON_UTF8),
        (Failure(500, "no"), False, answers.JSON_UTF8),
    ],
)
def test_an_error_of_a_stream_that_runs_is_chunked_like_the_stream(failure, running, content_type):
    response = answers.native_stream_error(asking(), failure)
    assert (response.status, response.body) == (500, b'{"error":"no"}')
    assert response.headers["Content-Type"] == content_type
    assert response.chunked is running
    assert not answers.native_stream_error(asking(version=HttpVersion10), failure).chunked


@pytest.mark.parametrize(("reason", "from_core", "end"), [("INVALID_REQUEST", True, b"}\n"), ("", False, b"}")])
def test_errors_of_the_core_on_v1_end_with_a_newline(reason, from_core, end):
    response = answers.openai_error(asking(), Failure(400, "no", reason))
    assert response.body.endswith(b'"code":null}' + end)
    assert ("charset" in response.headers["Content-Type"]) is not from_core
