"""Ollama's errors for 2,000 bodies: mostly broken ones, one for each distinct error of each route."""

import json
from pathlib import Path

import pytest

from puna.go.json_scanner import BodyError, EmptyBodyError, parse
from puna_rest.bodies import anthropic, native, openai, responses
from puna_rest.gobody.decoder import decode

RECORDED = json.loads((Path(__file__).parent / "go_errors.json").read_text())
KINDS = {
    "/api/generate": native.GENERATE,
    "/api/chat": native.CHAT,
    "/api/embed": native.EMBED,
    "/api/embeddings": native.EMBEDDINGS,
    "/api/show": native.SHOW,
    "/api/copy": native.COPY,
    "/api/delete": native.DELETE,
    "/api/pull": native.PULL,
    "/api/push": native.PUSH,
    "/api/create": native.CREATE,
    "/v1/chat/completions": openai.CHAT_COMPLETION,
    "/v1/completions": openai.COMPLETION,
    "/v1/embeddings": openai.EMBEDDINGS,
    "/v1/responses": responses.RESPONSES,
    "/v1/messages": anthropic.MESSAGES,
}


def complaint(path: str, body: bytes) -> str | None:
    try:
        decode(parse(body), KINDS[path])
    except EmptyBodyError as error:
        return "missing request body" if path.startswith("/api/") else str(error)
    except BodyError as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", KINDS)
def test_bodies_are_refused_in_the_words_of_the_reference(path):
    assert len(RECORDED[path]) > 80
    wrong = [
        (body, expected, said)
        for body, expected in RECORDED[path]
        if (said := complaint(path, body.encode("utf-8", "surrogatepass"))) != expected
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ('{"model":"a","MODEL":"b"}', "b"),
        ('{"MODEL":"b","model":"a"}', "a"),
        ('{"model":"a","model":null}', "a"),
        ('{"model":"\\ud800x\\udc00"}', "\ufffdx\ufffd"),
        ('{"model":"\\ud83d\\ude00"}', "😀"),
        ('{"model":"a"}garbage', "a"),
        ('{"model":"x\\u2028\\/\\""}', 'x\u2028/"'),
        ("null", ""),
        ("{}", ""),
    ],
)
def test_fields_are_found_as_go_finds_them(body, model):
    assert decode(parse(body.encode()), native.SHOW)["model"] == model


def test_bytes_that_are_no_utf8_become_one_replacement_each():
    assert decode(parse(b'{"model":"a\xe2\x82b\xff"}'), native.SHOW)["model"] == "a\ufffd\ufffdb\ufffd"


def test_go_folds_two_characters_beyond_ascii():
    assert decode(parse('{"\u017fource":"a","DE\u017fTINATION":"b"}'.encode()), native.COPY) == {
        "source": "a",
        "destination": "b",
    }
    assert decode(parse('{"\u212aeep_alive":"1s"}'.encode()), native.EMBED)["keep_alive"] == 1_000_000_000


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_bounded_as_in_go(opening):
    deep = '{"x":' + opening * 9_999 + "1" + ("]" if opening == "[" else "}") * 9_999 + "}"
    assert complaint("/api/show", deep.encode()) is None
    char = opening[0]
    assert complaint("/api/show", (opening * 10_001).encode()) == f"invalid character '{char}' exceeded max depth"


def test_maps_and_raw_texts_keep_what_was_sent():
    document = parse(b'{"options":{"b":1.50,"a":[1, 2]},"format":{"z": 1e5}, "options":{"c":"\\u003c"}}')
    body = decode(document, native.GENERATE)
    assert body["format"] == '{"z": 1e5}'
    assert [(key, document.raw(value)) for key, value in body["options"].value] == [
        ("b", "1.50"),
        ("a", "[1, 2]"),
        ("c", '"\\u003c"'),
    ]


@pytest.mark.parametrize(
    ("sent", "nanoseconds"),
    [
        ("5", 5_000_000_000),
        ("0.5", 500_000_000),
        ("-3", -1),
        ('"-1m"', -1),
        ('"-1"', -1),
        ('"1h30m"', 5_400_000_000_000),
        ('"0"', 0),
        ("1e10", -1),
        ("null", None),
    ],
)
def test_keep_alive_in_its_forms(sent, nanoseconds):
    assert decode(parse(f'{{"keep_alive":{sent}}}'.encode()), native.EMBED)["keep_alive"] == nanoseconds
