"""What reaches the upstream."""

import pytest
from tests.plugins.openai.front import KEY

from puna.backend import (
    ChatMessage,
    ChatTool,
    Constraint,
    InvalidRequestError,
    Sampling,
    UnsupportedError,
)

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
SCHEMA = '{"type": "object", "properties": {"a": {"type": "integer"}}}'
UNSET = Sampling(
    unset=(
        *("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "repeat_penalty"),
        *("presence_penalty", "frequency_penalty", "seed", "max_tokens"),
    )
)


async def test_what_is_unset_is_not_sent(sent_body, front):
    sent = await sent_body(sampling=UNSET)
    assert sent == {
        "model": "hello",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    _, headers, _ = front.requests[-1]
    assert headers["Authorization"] == f"Bearer {KEY}"


async def test_what_is_set_is_sent(sent_body):
    sampling = Sampling(temperature=0.5, top_p=0.75, seed=7, presence_penalty=1.5, top_k=3, logit_bias={5: -1.0})
    more = {"max_tokens": 9, "stop": ("\n", "END"), "top_logprobs": 0}
    sent = await sent_body(model="logprobs", sampling=sampling, **more)
    for name, value in {
        "temperature": 0.5,
        "top_p": 0.75,
        "seed": 7,
        "presence_penalty": 1.5,
        "max_tokens": 9,
        "stop": ["\n", "END"],
        "logit_bias": {"5": -1.0},
        "logprobs": True,
    }.items():
        assert sent[name] == value, name
    # It is no parameter of OpenAI's, and a strict server would refuse it.
    assert "top_k" not in sent
    assert "top_logprobs" not in sent


@pytest.mark.parametrize(
    ("upstream", "fields", "words"),
    [
        ({}, {"constraint": Constraint("regex", "a+")}, "constraints of kind regex"),
        ({}, {"constraint": Constraint("lark", "start: A")}, "constraints of kind lark"),
        ({"capabilities": []}, {"constraint": Constraint("json_schema", SCHEMA)}, "structured output"),
        ({"capabilities": []}, {"tools": (ChatTool(name="f"),)}, "tools"),
        ({"capabilities": []}, {"top_logprobs": 1}, "log-probabilities"),
        ({"capabilities": []}, {"messages": (ChatMessage(role="user", media=(PNG,)),)}, "images"),
        ({}, {"messages": (ChatMessage(role="user", media=(b"RIFF\0\0\0\0WAVE",)),)}, "sounds"),
    ],
)
async def test_demands_that_an_upstream_cannot_meet_are_refused(load, run, ask, front, upstream, fields, words):
    with pytest.raises(UnsupportedError, match=words):
        await run(await load("hello", **upstream), ask(**fields))
    assert front.requests == []


@pytest.mark.parametrize(
    "fields",
    [
        {"constraint": Constraint("json_schema", "[1]")},
        {"tools": (ChatTool(name="f", parameters_json="[]"),)},
        {"messages": (ChatMessage(role="user", media=(b"BM no image of theirs",)),)},
    ],
)
async def test_requests_that_cannot_be_written(load, run, ask, front, fields):
    with pytest.raises(InvalidRequestError):
        await run(await load("hello"), ask(**fields))
    assert front.requests == []


async def test_further_headers(load, run, ask, front):
    await run(await load("hello", headers={"X-Team": "blue"}), ask())
    assert front.requests[-1][1]["X-Team"] == "blue"
