"""Constraints that would take all time, memory or stack are refused by a limit; others are served meanwhile."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.e2e.server import MODELS, serving, wait_until
from tests.hostile.bounds import unharmed
from tests.hostile.fuzz import fuzz

from puna_client.v1 import generate_pb2, generate_pb2_grpc, options_pb2

HONEST = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]}
SLOW = {"allOf": [{"type": "integer", "multipleOf": n} for n in (997, 991, 983)]}
ROUTES = ("generate", "chat", "openai", "tool")


def chain(length, link):
    return {"$defs": {f"d{i}": link(f"#/$defs/d{i + 1}") for i in range(length)}, "$ref": "#/$defs/d0"}


def nested(depth, schema):
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


HUGE = {
    "a large multiple": {"type": "integer", "multipleOf": 123456789},
    "small multiples that hold together": SLOW,
    "a multiple of a fraction": {"type": "number", "multipleOf": 1.23456789},
    "multiples that hold together": {"allOf": [{"type": "integer", "multipleOf": n} for n in (9973, 9967, 9949)]},
    "a large enum": {"enum": [f"value {i:x} {i * 7919 % 99991:x}" for i in range(20000)]},
    "many properties": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}},
    "a long chain of references": chain(5000, lambda to: {"type": "array", "items": {"$ref": to}}),
    "a chain of unions": chain(
        30, lambda to: {"anyOf": [{"items": {"$ref": to}}, {"properties": {"a": {"$ref": to}}}]}
    ),
    "a chain of conjunctions": chain(25, lambda to: {"allOf": [{"$ref": to}, {"$ref": to}]}),
    "deep nesting": nested(400, {}),
    "nested repetition": {"type": "string", "pattern": "^(((a{1,99}b?){1,99}c?){1,99}d?){1,99}$"},
    "a wide pattern": {"type": "string", "pattern": "^(\\w{0,999}[^a-m]{0,999}){0,999}$"},
    "patterns that hold together": {"allOf": [{"pattern": f"a.{{{i}}}b"} for i in range(9, 30)]},
    "a long pattern": {"type": "string", "pattern": "|".join(f"(x{i}y?)*z" for i in range(10000))},
}


def request(route, schema):
    """Return the path and the body of a request for a form."""
    common = {"model": "scripted", "stream": False, "options": {"num_predict": 8}}
    messages = [{"role": "user", "content": "a"}]
    match route:
        case "generate":
            return "/api/generate", common | {"prompt": "a", "format": schema}
        case "chat":
            return "/api/chat", common | {"messages": messages, "format": schema}
        case "openai":
            form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
            body = {"model": "scripted", "max_tokens": 8, "messages": messages, "response_format": form}
            return "/v1/chat/completions", body
    function = {"name": "note", "parameters": {"type": "object", "properties": {"a": schema}, "required": ["a"]}}
    body = {"model": "tools", "max_tokens": 8, "messages": messages, "tool_choice": "required"}
    return "/v1/chat/completions", body | {"tools": [{"type": "function", "function": function}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(
        tmp_path_factory.mktemp("home") / "models",
        PUNA_MAX_CONSTRAINT_SECONDS="0.5",
        PUNA_MAX_CONSTRAINT_BYTES="1000000",
    ) as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        template = "{{ .Prompt }}{{ range .Tools }}{{ . }}{{ end }}"
        running.upload("tools", MODELS / "scripted.gguf", template=template)
        assert running.ask(*request("generate", HONEST))[0] == 200
        yield running


def leave(server, path, body, after):
    """Send a request and hang up."""
    address = urlsplit(server.url)
    data = json.dumps(body).encode()
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        time.sleep(after)


@pytest.mark.parametrize("route", ROUTES)
def test_clients_that_left_occupy_nothing(server, route):
    hosts = server.hosts()
    with unharmed(server):
        threads = [threading.Thread(target=leave, args=(server, *request(route, SLOW), 0.4)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        began = time.monotonic()
        assert server.ask(*request("generate", HONEST))[0] == 200
        long = {"model": "scripted", "prompt": "b " * 4000, "stream": False, "options": {"num_predict": 1}}
        assert server.ask("/api/generate", long)[0] == 200
        assert time.monotonic() - began < 20  # a machine may be busy; llguidance alone takes minutes
    assert set(hosts) <= set(server.hosts())


def test_honest_forms_are_had_while_others_are_compiled(server):
    with unharmed(server, within=2), ThreadPoolExecutor(8) as pool:
        attacks = [pool.submit(server.ask, *request("generate", SLOW)) for _ in range(6)]
        began = time.monotonic()
        assert server.ask(*request("generate", HONEST))[0] == 200
        assert time.monotonic() - began < 20  # a machine may be busy; llguidance alone takes minutes
        assert {attack.result()[0] for attack in attacks} == {400}


@pytest.mark.parametrize("name", HUGE)
def test_what_is_too_much_is_refused_by_name(server, name):
    hosts = server.hosts()
    with unharmed(server, within=2):
        status, _, text = server.ask(*request(ROUTES[sorted(HUGE).index(name) % 3], HUGE[name]))
    assert status in (200, 400), text
    if status == 400:
        assert "cannot be" in text.decode() or "too large" in text.decode()
    assert set(hosts) <= set(server.hosts())


def test_the_text_of_a_form_is_limited(server):
    schema = {"type": "string", "description": "x" * (1 << 20)}
    for route in ROUTES:
        status, _, text = server.ask(*request(route, schema))
        assert (status, b"PUNA_MAX_CONSTRAINT_BYTES allows 1000000" in text) == (400, True)


GRAMMARS = {
    "regex": "(((a{1,99}b?){1,99}c?){1,99}d?){1,99}|" + "|".join(f"(x{i}y?)*z" for i in range(50000)),
    "gbnf": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000,
    "lark": "start: a0\n" + "\n".join(f"a{i}: (a{i + 1} a{i + 1})~1..9" for i in range(5000)) + '\na5000: "x"',
    "json_schema": json.dumps({"enum": [f"value {i * 7919:x}" for i in range(40000)]}),
    "choices": {"values": [f"value {i * 7919:x}" for i in range(100000)]},
}


@pytest.mark.parametrize("kind", GRAMMARS)
def test_every_kind_of_constraint_is_bounded_over_grpc(server, kind):
    hosts = server.hosts()
    output = options_pb2.OutputConstraint(**{kind: GRAMMARS[kind]})
    options = options_pb2.RequestOptions(constraint=output)
    asked = generate_pb2.GenerateRequest(model="scripted", text="a", options=options)
    with grpc.insecure_channel(server.grpc) as channel, unharmed(server, within=2):
        answer = generate_pb2_grpc.GenerateServiceStub(channel).Generate.future(asked, timeout=30)
        assert answer.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT), answer.details()
    assert set(hosts) <= set(server.hosts())


NUMBERS = st.one_of(
    st.integers(-(10**25), 10**25), st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 99)
)
KEYWORDS = {
    "type": st.sampled_from(["string", "integer", "number", "object", "array", "boolean", "null", "nosuch", 3, None]),
    "multipleOf": NUMBERS,
    "minimum": NUMBERS,
    "exclusiveMaximum": NUMBERS,
    "minLength": NUMBERS,
    "maxLength": NUMBERS,
    "minItems": NUMBERS,
    "maxItems": NUMBERS,
    "minProperties": NUMBERS,
    "pattern": st.one_of(st.text(max_size=20), st.from_regex(r"[(\[a-c.|*+?{}0-9,\]\)\\]{1,20}", fullmatch=True)),
    "format": st.one_of(st.sampled_from(["date", "uuid", "email", "path"]), st.text(max_size=5)),
    "enum": st.lists(st.one_of(st.text(max_size=5), NUMBERS, st.none()), max_size=5),
    "const": st.one_of(st.text(max_size=5), NUMBERS),
    "required": st.one_of(st.none(), st.lists(st.sampled_from(["a", "b", "c"]), max_size=3)),
    "$ref": st.sampled_from(["#", "#/$defs/a", "#/properties/a", "http://x.invalid/y", "#/nosuch", 3]),
}
SCHEMAS = st.recursive(
    st.one_of(st.booleans(), st.fixed_dictionaries({}, optional=KEYWORDS)),
    lambda inner: st.fixed_dictionaries(
        {},
        optional=KEYWORDS
        | {
            "properties": st.dictionaries(st.sampled_from(["a", "b", "é", ""]), inner, max_size=3),
            "items": inner,
            "prefixItems": st.lists(inner, max_size=3),
            "additionalProperties": inner,
            "anyOf": st.lists(inner, max_size=3),
            "oneOf": st.lists(inner, max_size=3),
            "allOf": st.lists(inner, max_size=3),
            "not": inner,
            "$defs": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
        },
    ),
    max_leaves=8,
)


@fuzz(60, shrink=False)
@given(schema=SCHEMAS.filter(lambda made: isinstance(made, dict)))
def test_any_schema_is_enforced_or_refused(server, schema):
    hosts = server.hosts()
    status, _, text = server.ask(*request("generate", schema), timeout=30)
    assert status in (200, 400), text
    assert set(hosts) <= set(server.hosts())


def test_nothing_is_left_of_it(server):
    """Runs last: the processes of all those constraints are gone."""
    with unharmed(server):
        pass
    wait_until(lambda: len(server.hosts()) <= 2)
