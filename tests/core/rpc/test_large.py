"""Elements of requests are counted without making them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InvalidRequestError
from puna.limits import Limits
from puna.rpc import bounds
from puna.rpc.large import IN_STREAM, checked, count
from puna_client.v1 import chat_pb2, embed_pb2, generate_pb2, models_pb2, options_pb2

CHAT = chat_pb2.ChatRequest.DESCRIPTOR


def test_every_element_counts():
    request = chat_pb2.ChatRequest(model="m", messages=[{"role": "user", "tool_calls": [{"name": "f"}, {}]}] * 3)
    # The model, and for each message: itself, its role, two calls and a name.
    assert count(request.SerializeToString(), CHAT, 1000) == 1 + 3 * 5


def test_packed_numbers_are_one_element():
    request = generate_pb2.GenerateRequest(context={"ids": range(1000)})
    assert count(request.SerializeToString(), generate_pb2.GenerateRequest.DESCRIPTOR, 1000) == 2


def test_counting_ends_at_the_bound():
    request = chat_pb2.ChatRequest(messages=[{}] * 100_000)
    assert count(request.SerializeToString(), CHAT, 10) == 11


def test_a_message_of_a_stream_is_refused_for_its_elements():
    kind = embed_pb2.StreamEmbedRequest
    fits = kind(config={"model": "m", "inputs": ["a" * 20_000] * 10})
    assert checked(kind, kind.FromString, fits.SerializeToString(), IN_STREAM) == fits
    many = kind(config={"model": "m", "inputs": ["a"] * (IN_STREAM + 1)})
    with pytest.raises(InvalidRequestError, match="at most 20000 elements"):
        checked(kind, kind.FromString, many.SerializeToString(), IN_STREAM)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_counted(data):
    assert 0 <= count(data, CHAT, 1000) <= 201


@pytest.mark.parametrize(
    ("check", "wire", "field"),
    [
        (bounds.check_chat, chat_pb2.ChatRequest(messages=[{}] * 4), "messages"),
        (bounds.check_chat, chat_pb2.ChatRequest(messages=[{"tool_calls": [{}] * 4}]), "tool_calls"),
        (bounds.check_chat, chat_pb2.ChatRequest(tools=[{}] * 4), "tools"),
        (bounds.check_create, models_pb2.CreateModelRequest(licenses=["a"] * 4), "license"),
        (bounds.check_embed, embed_pb2.EmbedRequest(inputs=["a"] * 4), "input"),
        (bounds.check_generate, generate_pb2.GenerateRequest(context={"ids": range(4)}), "context"),
        (bounds.check_options, options_pb2.RequestOptions(options_json="{   }"), "options"),
        (bounds.check_options, options_pb2.RequestOptions(sampling={"stop": ["a"] * 4}), "stop"),
        (bounds.check_options, options_pb2.RequestOptions(backend_options_json={"a": "{  }"}), "backend_options_json"),
        (bounds.check_options, options_pb2.RequestOptions(backend_options_json={"abcd": ""}), "backend_options_json"),
    ],
)
def test_what_is_too_much_is_refused_by_name(check, wire, field):
    names = ("json_values", "options_bytes", "stops", "inputs", "messages", "tools", "licenses")
    check(wire, Limits())
    with pytest.raises(InvalidRequestError, match=f"^{field}: .* more than the limit of 3$"):
        check(wire, Limits(**{f"max_{name}": 3 for name in names}))
