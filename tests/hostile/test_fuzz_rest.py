"""Every route with bodies made of its table, honest and not: there is an answer or a refusal, never a failure."""

import base64
import http.client
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.hostile import values
from tests.hostile.fuzz import fuzz
from tests.hostile.target import check, recovered, target

from puna_rest.bodies import anthropic, batches, custom, native, openai, rank, responses
from puna_rest.gobody import kinds
from puna_rest.table import TABLE

PATIENCE = 2.0
"""Seconds until a client hangs up: what is hostile may ask for an answer without end."""
DOCUMENTED = re.compile("^(?!internal error|llama runner process has terminated|the backend|unable to load)", re.DOTALL)
"""Texts of 500: Ollama answers some refusals so."""
ENDED = {
    "application/x-ndjson": re.compile(rb'"done":true|"error":|"status":"success"'),
    "text/event-stream": re.compile(rb"data: \[DONE\]|\"error\"|message_stop|response\.(completed|incomplete|failed)"),
}
BODIES = {
    "/api/show": native.SHOW,
    "/api/generate": native.GENERATE,
    "/api/chat": native.CHAT,
    "/api/embed": native.EMBED,
    "/api/embeddings": native.EMBEDDINGS,
    "/api/pull": native.PULL,
    "/api/push": native.PUSH,
    "/api/create": native.CREATE,
    "/api/copy": native.COPY,
    "/api/delete": native.DELETE,
    "/api/experimental/web_search": native.WEB_SEARCH,
    "/api/experimental/web_fetch": native.WEB_FETCH,
    "/v1/chat/completions": openai.CHAT_COMPLETION,
    "/v1/completions": openai.COMPLETION,
    "/v1/embeddings": openai.EMBEDDINGS,
    "/v1/responses": responses.RESPONSES,
    "/v1/messages": anthropic.MESSAGES,
    "/v1/messages/count_tokens": anthropic.MESSAGES,
    "/v1/batches": batches.BATCH,
    "/v1/rerank": rank.RERANK,
    "/api/tokenize": native.TOKENIZE,
    "/api/detokenize": native.DETOKENIZE,
}
WITHOUT = {
    *("/api/me", "/api/signout", "/api/user/keys/{}", "/api/blobs/{}", "/v1/audio/transcriptions"),
    *("/v1/files", "/v1/files/{}", "/v1/batches/{}/cancel"),
}
"""Routes that read no JSON."""
ROLES = ('"user"', '"user"', '"system"', '"assistant"', '"tool"', '"developer"')
BY_NAME = {
    "options": values.options(),
    "format": values.schemas,
    "schema": values.schemas,
    "role": st.sampled_from(ROLES) | values.strings,
    "max_tokens": values.small,
    "max_output_tokens": values.small,
    "max_completion_tokens": values.small,
    "stream": values.booleans,
    "insecure": values.booleans,
    "keep_alive": st.sampled_from(("-1", "300", '"5m"', "0", '"1e300h"', "1e300", str(2**63), '""', "null")),
    "think": values.booleans | st.sampled_from(('"high"', '"max"', '"x"', "5")),
    "files": values.objects(values.strings, st.just(json.dumps(values.DIGEST)) | values.strings),
    "input": values.strings | values.arrays(values.strings) | values.anything,
}


@st.composite
def texts(draw, kind, name="", depth=0, model=values.names):
    """JSON of a type of a body's table; now and then of another type."""
    chance = draw(st.integers(0, 15))
    if chance == 0 and depth:
        return draw(values.anything)
    if name in ("model", "name", "source", "destination", "from") and depth == 1:
        return draw(model)
    if name in BY_NAME and chance < 13:
        return draw(BY_NAME[name])
    inner = lambda of, named=name: texts(of, named, depth + 1, model)  # noqa: E731
    match kind:
        case kinds.Struct():
            required = [each for each in ("model", "messages", "prompt", "input", "max_tokens") if each in kind._fields]
            more = draw(st.lists(st.sampled_from(sorted(kind._fields)), max_size=4))
            chosen = [*(each for each in required if depth == 0 and draw(st.integers(0, 9))), *more]
            return (
                "{" + ",".join(f"{json.dumps(each)}:{draw(inner(kind._fields[each], each))}" for each in chosen) + "}"
            )
        case kinds.Slice():
            return draw(values.arrays(inner(kind._kind)))
        case kinds.Pointer() | kinds.Inner() | custom._WithText():
            return draw(inner(kind._kind))
        case kinds.Later():
            return draw(inner(kind._kind()) if depth < 5 else values.scalars)
        case kinds.String():
            return draw(values.strings)
        case kinds.Bool():
            return draw(values.booleans)
        case kinds.Int():
            return draw(values.integers)
        case kinds.Float():
            return draw(values.floats)
        case kinds.Bytes():
            return json.dumps(base64.b64encode(draw(st.binary(max_size=20))).decode())
        case kinds.AnyMap():
            return draw(values.objects(values.strings, values.anything))
        case kinds.StringMap():
            return draw(values.objects(values.strings, values.strings))
        case _:
            return draw(values.anything)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with target(tmp_path_factory.mktemp("home")) as running:
        yield running
        recovered(running)


def exchange(server, method, path, body, headers=None):
    """Send a request; return status, type of content and body, nothing if it was hung up on."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)
    end = time.monotonic() + PATIENCE
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = b""
        while piece := answer.read1():
            text += piece
            if time.monotonic() > end:
                return None
        return answer.status, answer.headers.get_content_type(), text
    except TimeoutError:
        return None
    finally:
        connection.close()


def attack(server, method, path, body, headers=None):
    """Send a request. Fail unless the server is well afterwards and its answer is one that may be."""
    found = exchange(server, method, path, body, headers)
    check(server)
    judge(found)


def judge(found):
    """Fail unless an answer is one that may be."""
    if found is None:
        return
    status, kind, body = found
    assert status < 500 or status in (500, 501, 502, 503, 504), found
    if status == 500:
        error = json.loads(body)["error"]
        text = error if isinstance(error, str) else error["message"]
        assert DOCUMENTED.search(text), found
    if status == 200 and kind in ENDED:
        assert ENDED[kind].search(b"\n".join(body.splitlines()[-4:])), body[-2000:]


def test_every_route_that_reads_json_is_fuzzed():
    routes = (*TABLE._exact.values(), *TABLE._open.values())
    # The methods of gRPC over HTTP take protobuf; test_fuzz_rpc.py sends random messages to each.
    native = (route for route in routes if not route.path.startswith("/puna.v1."))
    reading = {route.path for route in native if {"POST", "DELETE"} & route.handlers.keys()}
    assert reading == BODIES.keys() | WITHOUT


def of(path):
    """Bodies of a route."""
    model = values.other_names if path in ("/api/delete", "/api/copy", "/api/create") else values.names
    return texts(BODIES[path], model=model).map(lambda text: text.encode("utf-8", "surrogatepass"))


def method(path):
    return "DELETE" if path in ("/api/delete", "/api/user/keys/{}", "/v1/files/{}") else "POST"


@pytest.mark.parametrize("path", sorted(BODIES))
@fuzz(examples=12, shrink=False)
@given(data=st.data())
def test_bodies(server, path, data):
    attack(server, method(path), path, data.draw(of(path)))


@pytest.mark.parametrize("path", sorted(BODIES))
@fuzz(examples=6, shrink=False)
@given(data=st.data())
def test_bytes(server, path, data):
    body = data.draw(of(path).flatmap(values.mutated))
    headers = data.draw(st.sampled_from(({}, {}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"})))
    attack(server, method(path), path, body, headers)


@pytest.mark.parametrize("path", sorted(WITHOUT))
@fuzz(examples=10, shrink=False)
@given(
    name=st.sampled_from((values.DIGEST, "sha256-" + "a" * 64, "..%2f..%2fetc", "x", "%00", "a" * 3000)), data=st.data()
)
def test_other_routes(server, path, name, data):
    body = data.draw(st.binary(max_size=200) | values.anything.map(lambda text: text.encode("utf-8", "surrogatepass")))
    kind = data.draw(
        st.sampled_from(("application/json", "multipart/form-data", "multipart/form-data; boundary=x", ""))
    )
    if data.draw(st.booleans()):
        body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + body + b"\r\n--x--\r\n"
    attack(server, method(path), path.replace("{}", name), body, {"Content-Type": kind})


@fuzz(examples=40, shrink=False)
@given(
    verb=st.sampled_from(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "x")),
    path=st.sampled_from([each.path for each in (*TABLE._exact.values(), *TABLE._open.values())])
    | st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=30).map("/".__add__),
    tail=st.sampled_from(("", "/", "//", "?", "?a=%ff", "/..", "%2e%2e/", ";x", "%00", "a" * 5000)),
)
def test_paths(server, verb, path, tail):
    attack(server, verb, path + tail, b"{}")


@fuzz(examples=6, shrink=False)
@given(st.lists(st.sampled_from(sorted(BODIES)).flatmap(lambda path: st.tuples(st.just(path), of(path))), max_size=24))
def test_many_at_once(server, requests):
    with ThreadPoolExecutor(len(requests) or 1) as pool:
        found = list(pool.map(lambda each: exchange(server, method(each[0]), *each), requests))
    check(server)
    for each in found:
        judge(each)
