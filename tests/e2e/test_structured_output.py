"""Answers of a demanded form: they have it, or the request is refused and told why. Nothing is ever ignored."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from jsonschema import Draft202012Validator
from tests.e2e.schemas import UNENFORCEABLE, schema

SCHEMAS = 200
TOKENS = 160
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def body(number, output, **more):
    """Make a request whose route and kind depend on its number: generate or chat, streamed or not, with tools."""
    said = {"model": "llamita", "format": output, "stream": number % 3 == 0}
    said["options"] = {"temperature": 1, "seed": number, "num_predict": TOKENS}
    text = f"Invent something and tell me of it as JSON. Number {number}."
    if number % 2:
        return "/api/generate", said | {"prompt": text} | more
    if number % 4 == 0:
        said["tools"] = [TOOL]
    return "/api/chat", said | {"messages": [{"role": "user", "content": text}]} | more


def answer(server, path, request):
    """Ask; return the status and what was answered: text, thinking, reason."""
    status, _, text = server.ask(path, request, timeout=120)
    if status != 200:
        return status, text.decode(), "", ""
    lines = [json.loads(line) for line in text.splitlines() if line]
    parts = [line.get("message", line) for line in lines]
    content = "".join(part.get("response", part.get("content", "")) for part in parts)
    return status, content, "".join(part.get("thinking", "") for part in parts), lines[-1].get("done_reason", "")


def wrong(text, output):
    """Return what a complete answer does not keep to."""
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"{error}: {text}"
    validator = Draft202012Validator(output, format_checker=Draft202012Validator.FORMAT_CHECKER)
    found = [f"{error.message}: {text}" for error in validator.iter_errors(value)]
    return found[0] if found else out_of_order(value, output)


def out_of_order(value, output):
    """Return where the answer's properties are not in the schema's order, those that it does not know last."""
    known = list(output["properties"])
    ranks = [known.index(name) if name in known else len(known) for name in value]
    return "" if ranks == sorted(ranks) else f"order: {list(value)} instead of {known}"


def all_answers(server, requests):
    """Ask all of it, a few at a time."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda request: answer(server, *request), requests))


@pytest.fixture(scope="module")
def answers(server):
    """One answer for each schema."""
    made = [schema(seed) for seed in range(SCHEMAS)]
    requests = [body(number, output, think=number % 5 == 0) for number, output in enumerate(made)]
    return list(zip(made, requests, all_answers(server, requests), strict=True))


def test_complete_answers_are_valid_and_in_order(answers):
    complete = [(output, text) for output, _, (status, text, _, reason) in answers if (status, reason) == (200, "stop")]
    assert [fault for output, text in complete if (fault := wrong(text, output))] == []
    assert len(complete) >= 0.8 * sum(status == 200 for _, _, (status, *_) in answers)


def test_these_schemas_can_be_enforced(answers):
    """All are of keywords that can be held; a refusal, too, would be a loss."""
    assert [text for _, _, (status, text, *_) in answers if status != 200] == []


def test_all_kinds_of_requests_are_among_them(answers):
    kinds = {(path, said["stream"], said["think"], "tools" in said) for _, (path, said), _ in answers}
    assert len(kinds) == 12


def test_the_form_is_for_what_follows_the_thinking(answers):
    thought = [answer for _, (path, said), answer in answers if path == "/api/chat" and said["think"]]
    assert [answer for answer in thought if answer[0] == 200 and not answer[2]] == []
    assert any(reason == "stop" for *_, reason in thought)


def test_what_cannot_be_enforced_is_refused_by_name(server):
    requests = [body(number, output, think=number % 4 == 0) for number, (_, output) in enumerate(UNENFORCEABLE)]
    refusals = all_answers(server, requests)
    assert [status for status, *_ in refusals] == [400] * len(UNENFORCEABLE)
    for (word, _), (_, text, *_) in zip(UNENFORCEABLE, refusals, strict=True):
        assert word in json.loads(text)["error"]


@pytest.mark.parametrize("number", [1, 2])
def test_whole_numbers_come_as_they_were_sent(server, number):
    status, text, _, reason = answer(server, *body(number, {"enum": [1234567890123456789]}))
    assert (status, text, reason) == (200, "1234567890123456789", "stop")


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_json_alone_means_an_object(server, path):
    numbers = [number for number in range(24) if body(number, "json")[0] == path]
    answers = all_answers(server, [body(number, "json") for number in numbers])
    complete = [text for _, text, _, reason in answers if reason == "stop"]
    assert complete
    assert all(isinstance(json.loads(text), dict) for text in complete)


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
@pytest.mark.parametrize("output", ['"yaml"', "yaml", 3, [1]])
def test_other_forms_are_refused(server, path, output):
    _, request = body(int(path == "/api/generate"), output)
    status, text, *_ = answer(server, path, request)
    assert status == 500  # as in Ollama
    assert "invalid format" in text
