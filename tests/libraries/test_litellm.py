"""The litellm package by its providers ollama (/api/generate), ollama_chat (/api/chat) and openai (/v1)."""

import json

import pytest

SCRIPT = "drive_litellm.py"
ANSWER = "The capital of France is Paris."


@pytest.mark.parametrize("provider", ["ollama", "ollama_chat"])
def test_chat(found, provider):
    answer = found["chat"][provider]
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == ANSWER
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] > 5


def test_as_openai(found):
    assert found["openai"] == ANSWER


def test_stream(found):
    pieces = [*found["stream"].values(), found["stream_async"]]
    assert ["".join(piece or "" for piece in each) for each in pieces] == [ANSWER] * 3
    assert min(map(len, pieces)) > 3


def test_tools(found):
    name, arguments = found["tools"]["call"]
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Paris"})
    assert found["tools"]["finish"] == "tool_calls"
    assert "18 degrees" in found["tools"]["answer"]


def test_json_schema(found):
    assert json.loads(found["json_schema"]["ollama_chat"]) == {"name": "Anna", "age": 31}
    # This provider writes the conversation as "### User:" text of its own; the form is held all the same.
    written = json.loads(found["json_schema"]["ollama"])
    assert {name: type(value) for name, value in written.items()} == {"name": str, "age": int}


def test_thinking(found):
    assert "7" in found["thinking"]["reasoning"]
    assert found["thinking"]["text"] == "3 + 4 = 7."


def test_embeddings(found):
    one, two = found["embeddings"]
    assert len(one) == 32
    assert one != pytest.approx(two, abs=1e-2)


def test_options(found):
    (choice,) = found["options"]["choices"]
    assert choice["message"]["content"] == " w0 w1 "
    assert found["options"]["usage"]["completion_tokens"] == 3


def test_an_unknown_model_is_a_404(found):
    for name, text in found["errors"].values():
        assert name == "NotFoundError"
        assert "model 'nowhere' not found" in text
