import pytest

from puna.cli.conversation import LEVELS, Conversation
from puna_client.v1 import message_pb2, options_pb2


def roles(conversation):
    return [(each.role, each.content) for each in conversation.messages]


def test_a_new_system_message_replaces_one_that_was_not_used_yet():
    conversation = Conversation(model="m")
    conversation.set_system("a")
    conversation.set_system("b")
    assert roles(conversation) == [("system", "b")]
    conversation.messages.append(message_pb2.ChatMessage(role="user", content="hi"))
    conversation.set_system("c")
    assert roles(conversation) == [("system", "b"), ("user", "hi"), ("system", "c")]


@pytest.mark.parametrize(("system", "left"), [("a", [("system", "a")]), ("", [])])
def test_clear_keeps_the_system_message_alone(system, left):
    conversation = Conversation(model="m", system=system)
    conversation.messages.append(message_pb2.ChatMessage(role="user", content="hi"))
    conversation.clear()
    assert roles(conversation) == left


def test_options_that_the_user_has_not_set_are_left_to_the_server():
    options = Conversation(model="m").options()
    assert options == options_pb2.RequestOptions(truncate=True)


def test_options():
    options = Conversation(model="m", parameters={"top_k": 1, "stop": ["a"]}, keep_alive_ns=90 * 10**9).options()
    assert options.options_json == '{"top_k": 1, "stop": ["a"]}'
    assert options.keep_alive.duration.seconds == 90
    assert Conversation(model="m", keep_alive_ns=-1).options().keep_alive.forever
    assert Conversation(model="m", keep_alive_ns=0).options().keep_alive.HasField("duration")


@pytest.mark.parametrize(
    ("given", "constraint"),
    [
        ("json", options_pb2.OutputConstraint(json_object=True)),
        ('{"type":"string"}', options_pb2.OutputConstraint(json_schema='{"type":"string"}')),
    ],
)
def test_format(given, constraint):
    assert Conversation(model="m", format=given).options().constraint == constraint


@pytest.mark.parametrize("think", LEVELS)
def test_think(think):
    assert Conversation(model="m", think=think).options().thinking == LEVELS[think]
