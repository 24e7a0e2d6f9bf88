from dataclasses import replace

import pytest

from puna.errors import InvalidRequestError
from puna.limits import Limits
from puna.rpc import bounds
from puna_client.v1 import (
    chat_pb2,
    embed_pb2,
    generate_pb2,
    message_pb2,
    models_pb2,
    options_pb2,
    rank_pb2,
    tokenize_pb2,
    usage_pb2,
)

LIMITS = replace(
    Limits(),
    max_json_values=3,
    max_messages=3,
    max_tools=3,
    max_inputs=3,
    max_licenses=3,
    max_stops=3,
    max_choices=3,
    max_options_bytes=3,
)


def generate(**fields):
    return generate_pb2.GenerateRequest(**fields)


def chat(**fields):
    return chat_pb2.ChatRequest(**fields)


def calling(count):
    """Two messages that call tools `count` times together."""
    calls = [message_pb2.ToolCall(name="f")] * (count - 1)
    return [
        message_pb2.ChatMessage(tool_calls=calls),
        message_pb2.ChatMessage(tool_calls=[message_pb2.ToolCall(name="g")]),
    ]


def with_options(request, count):
    return {
        "options": options_pb2.RequestOptions(options_json="x" * count),
        "stop": options_pb2.RequestOptions(sampling=options_pb2.SamplingOptions(stop=["s"] * count)),
        "logit_bias": options_pb2.RequestOptions(
            sampling=options_pb2.SamplingOptions(logit_bias=dict.fromkeys(range(count), 1.0))
        ),
        "backend_options_json": options_pb2.RequestOptions(backend_options_json={"b": "x" * (count - 1)}),
    }[request]


CASES = [
    (bounds.check_generate, lambda n: generate(context=usage_pb2.TokenIds(ids=[1] * n)), "context: {} tokens"),
    (bounds.check_generate, lambda n: generate(token_ids=usage_pb2.TokenIds(ids=[1] * n)), "token_ids: {} tokens"),
    (bounds.check_chat, lambda n: chat(messages=[message_pb2.ChatMessage()] * n), "messages: {} messages"),
    (bounds.check_chat, lambda n: chat(messages=calling(n)), "tool_calls: {} calls"),
    (bounds.check_chat, lambda n: chat(tools=[message_pb2.Tool()] * n), "tools: {} tools"),
    (bounds.check_chat, lambda n: chat(n=n), "n: {} answers"),
    (bounds.check_generate, lambda n: generate(n=n), "n: {} answers"),
    (bounds.check_embed, lambda n: embed_pb2.EmbedRequest(inputs=["a"] * n), "input: {} texts"),
    (bounds.check_rerank, lambda n: rank_pb2.RerankRequest(documents=["a"] * n), "documents: {} documents"),
    (bounds.check_detokenize, lambda n: tokenize_pb2.DetokenizeRequest(token_ids=[1] * n), "token_ids: {} tokens"),
    (
        bounds.check_create,
        lambda n: models_pb2.CreateModelRequest(messages=[message_pb2.ChatMessage()] * n),
        "messages: {} messages",
    ),
    (bounds.check_create, lambda n: models_pb2.CreateModelRequest(licenses=["a"] * n), "license: {} texts"),
    (
        bounds.check_create,
        lambda n: models_pb2.CreateModelRequest(parameters_json="x" * n),
        "parameters: {} characters",
    ),
    (bounds.check_create, lambda n: models_pb2.CreateModelRequest(info_json="x" * n), "info: {} characters"),
    (bounds.check_options, lambda n: with_options("options", n), "options: {} characters"),
    (bounds.check_options, lambda n: with_options("stop", n), "stop: {} strings"),
    (bounds.check_options, lambda n: with_options("logit_bias", n), "logit_bias: {} tokens"),
    (
        bounds.check_options,
        lambda n: with_options("backend_options_json", n),
        "backend_options_json: {} characters",
    ),
    (bounds.check_stops, lambda n: ["s"] * n, "stop: {} strings"),
]


@pytest.mark.parametrize(("check", "make", "text"), CASES)
def test_as_many_as_the_limit_pass_and_one_more_does_not(check, make, text):
    check(make(3), LIMITS)
    with pytest.raises(InvalidRequestError) as caught:
        check(make(4), LIMITS)
    assert str(caught.value) == text.format(4) + " are more than the limit of 3"


@pytest.mark.parametrize(
    ("check", "make"),
    [
        (bounds.check_generate, generate),
        (bounds.check_chat, chat),
        (bounds.check_embed, embed_pb2.EmbedRequest),
        (bounds.check_rerank, rank_pb2.RerankRequest),
        (bounds.check_detokenize, tokenize_pb2.DetokenizeRequest),
    ],
)
def test_every_request_with_options_has_them_checked(check, make):
    with pytest.raises(InvalidRequestError, match=r"^options: 4 characters"):
        check(make(options=options_pb2.RequestOptions(options_json="{  }")), LIMITS)


def test_a_single_stop_string_of_any_length_is_no_list():
    bounds.check_stops("a" * 100, LIMITS)
