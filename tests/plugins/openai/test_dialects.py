"""What each kind of server gets beyond OpenAI's parameters."""

import json

import pytest

from puna.backend import Constraint, Sampling

SCHEMA = '{"type": "object", "properties": {"a": {"type": "integer"}}}'


@pytest.mark.parametrize(
    ("dialect", "present", "absent"),
    [
        ("openai", {"max_completion_tokens": 9}, ["max_tokens", "top_k"]),
        ("vllm", {"top_k": 3, "repetition_penalty": 1.25, "min_p": 0.5}, ["repeat_penalty"]),
        ("llama-server", {"top_k": 3, "repeat_penalty": 1.25, "typical_p": 0.5}, ["repetition_penalty"]),
    ],
)
async def test_dialects_name_more_parameters(sent_body, dialect, present, absent):
    sampling = Sampling(top_k=3, repeat_penalty=1.25, min_p=0.5, typical_p=0.5)
    sent = await sent_body(upstream={"dialect": dialect}, sampling=sampling, max_tokens=9)
    assert {name: sent.get(name) for name in present} == present
    assert not sent.keys() & set(absent)


@pytest.mark.parametrize(
    ("dialect", "constraint", "fields"),
    [
        ("compatible", Constraint("json_schema", '{"type":"object"}'), {"response_format": {"type": "json_object"}}),
        (
            "vllm",
            Constraint("json_schema", SCHEMA),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": json.loads(SCHEMA), "strict": True},
                }
            },
        ),
        (
            "llama-cpp-python",
            Constraint("json_schema", SCHEMA),
            {"response_format": {"type": "json_object", "schema": json.loads(SCHEMA)}},
        ),
        ("vllm", Constraint("regex", "a+"), {"structured_outputs": {"regex": "a+"}}),
        ("llama-server", Constraint("gbnf", "root ::= a"), {"grammar": "root ::= a"}),
    ],
)
async def test_structured_output(sent_body, dialect, constraint, fields):
    sent = await sent_body(upstream={"dialect": dialect}, constraint=constraint)
    assert {name: sent[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("dialect", "thinking", "fields"),
    [
        ("compatible", "high", {}),
        ("openai", "off", {"reasoning_effort": "minimal"}),
        ("openai", "max", {"reasoning_effort": "high"}),
        ("ollama", "off", {"reasoning_effort": "none"}),
        ("vllm", "off", {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}),
        ("vllm", "", {}),
    ],
)
async def test_thinking(sent_body, dialect, thinking, fields):
    sent = await sent_body(upstream={"dialect": dialect}, thinking=thinking)
    names = ("reasoning_effort", "chat_template_kwargs")
    assert {name: sent[name] for name in names if name in sent} == fields


@pytest.mark.parametrize(("dialect", "sent"), [("vllm", "s"), ("compatible", None)])
async def test_a_salt(sent_body, dialect, sent):
    body = await sent_body(upstream={"dialect": dialect}, cache_salt="s")
    assert body.get("cache_salt") == sent
