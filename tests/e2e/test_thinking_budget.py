"""A thinking budget by every face that takes one, with the real engine and the demo model, which thinks."""

import json
import uuid

import grpc
import pytest

from puna_client.v1 import chat_pb2, chat_pb2_grpc, generate_pb2, generate_pb2_grpc, message_pb2, options_pb2

QUESTION = "What is 3 + 4?"
SCHEMA = '{"type":"object","properties":{"sum":{"type":"integer"}},"required":["sum"]}'


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def options(budget=None, **fields):
    sampling = options_pb2.SamplingOptions(temperature=0, max_output_tokens=80)
    return options_pb2.RequestOptions(sampling=sampling, cache_salt=uuid.uuid4().hex, thinking_budget=budget, **fields)


def chat(budget=None, model="llamita", text=QUESTION, **fields):
    more = {name: fields.pop(name) for name in ("n", "tools") if name in fields}
    message = message_pb2.ChatMessage(role="user", content=text)
    return chat_pb2.ChatRequest(model=model, messages=[message], options=options(budget, **fields), **more)


def counted(stream):
    """Read a stream; return its thinking, its content, the number of steps with thinking, and the usage."""
    thinking, content, tokens = "", "", 0
    for part in stream:
        for delta in part.deltas:
            thinking += delta.thinking
            content += delta.content if isinstance(part, chat_pb2.StreamChatResponse) else delta.text
            tokens += bool(delta.thinking)
        usage = part.done.finish.usage
    return thinking, content, tokens, usage


@pytest.mark.parametrize("budget", [0, 1, 3, 5])
def test_thinking_never_exceeds_the_budget(channel, budget):
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    free, _, spent, usage = counted(stub.StreamChat(chat(), timeout=60))
    assert spent > 5
    assert usage.thinking_tokens == 0
    thinking, content, tokens, usage = counted(stub.StreamChat(chat(budget), timeout=60))
    assert tokens <= budget
    assert usage.thinking_tokens == budget
    assert free.startswith(thinking.strip())
    assert content
    assert "think>" not in content


def test_a_budget_that_is_not_spent_changes_nothing(channel):
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    free, within = (stub.Chat(chat(budget), timeout=60) for budget in (None, 1000))
    assert within.message == free.message
    assert 5 < within.finish.usage.thinking_tokens < within.finish.usage.output_tokens
    within.finish.usage.thinking_tokens = 0
    # How much is drafted depends on how long earlier steps took.
    for each in (free, within):
        each.finish.usage.draft_tokens = each.finish.usage.accepted_draft_tokens = 0
    assert within.finish.usage == free.finish.usage


@pytest.mark.parametrize("budget", [0, 4])
def test_completions(channel, budget):
    stub = generate_pb2_grpc.GenerateServiceStub(channel)
    request = generate_pb2.GenerateRequest(model="llamita", text=QUESTION, options=options(budget))
    _, content, tokens, usage = counted(stub.StreamGenerate(request, timeout=60))
    assert (tokens <= budget, usage.thinking_tokens) == (True, budget)
    assert content
    assert "think>" not in content


@pytest.mark.parametrize("budget", [0, 2, 4])
def test_structured_output_begins_after_the_closed_thinking(channel, budget):
    constraint = options_pb2.OutputConstraint(json_schema=SCHEMA)
    answer = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat(budget, constraint=constraint), timeout=60)
    assert isinstance(json.loads(answer.message.content)["sum"], int)
    assert answer.finish.usage.thinking_tokens <= budget
    assert bool(answer.message.thinking) is bool(budget)


def test_with_several_answers(channel):
    answer = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat(3, n=3), timeout=60)
    assert [each.finish.thinking_tokens for each in answer.choices] == [3, 3, 3]
    assert answer.finish.usage.thinking_tokens == 9


def test_thinking_that_is_off_has_no_budget(channel):
    off = options_pb2.THINKING_LEVEL_OFF
    answer = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat(3, thinking=off), timeout=60)
    assert (answer.message.thinking, answer.finish.usage.thinking_tokens) == ("", 0)


def test_a_model_that_does_not_think_ignores_the_budget(channel):
    answer = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat(3, model="scripted", text="a"), timeout=60)
    assert answer.message.content


@pytest.mark.parametrize("budget", [-1, -(2**31)])
def test_a_negative_budget_is_refused(channel, budget):
    with pytest.raises(grpc.RpcError) as refused:
        chat_pb2_grpc.ChatServiceStub(channel).Chat(chat(budget), timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "options.thinking_budget: " in refused.value.details()


def messages(server, **thinking):
    body = {"model": "llamita", "max_tokens": 80, "temperature": 0, "thinking": {"type": "enabled"} | thinking}
    answer = server.json("/v1/messages", body | {"messages": [{"role": "user", "content": QUESTION}]})
    return {block["type"]: block.get(block["type"]) or block["text"] for block in answer["content"]}, answer["usage"]


def test_budget_tokens_of_anthropic(server):
    free, _ = messages(server)
    for without in ({"budget_tokens": 0}, {"budget_tokens": 1024}):
        assert messages(server, **without)[0] == free
    found, _ = messages(server, budget_tokens=3)
    assert len(found["thinking"]) < len(free["thinking"])
    assert free["thinking"].startswith(found["thinking"].strip())
    assert found["text"]


@pytest.mark.parametrize("fields", [{"reasoning": {"max_tokens": 3}}, {"thinking_token_budget": 3}])
def test_budgets_of_openai_s_clients(server, fields):
    body = {"model": "llamita", "max_tokens": 80, "temperature": 0, "messages": [{"role": "user", "content": QUESTION}]}
    free = server.json("/v1/chat/completions", body)["choices"][0]["message"]
    answer = server.json("/v1/chat/completions", body | fields)
    found = answer["choices"][0]["message"]
    assert free["reasoning"].startswith(found["reasoning"].strip())
    assert len(found["reasoning"]) < len(free["reasoning"])
    assert found["content"]
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
