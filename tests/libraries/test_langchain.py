"""The langchain-ollama package."""

import pytest

SCRIPT = "drive_langchain.py"
ANSWER = "The capital of France is Paris."
ANNA = {"name": "Anna", "age": 31}


def test_invoke(found):
    answer = found["invoke"]
    assert answer["text"] == ANSWER
    assert answer["about"]["done_reason"] == "stop"
    assert answer["usage"]["output_tokens"] == answer["about"]["eval_count"] > 5
    assert "Clara" in found["history"]


def test_stream(found):
    assert "".join(found["stream"]["pieces"]) == "".join(found["stream_async"]) == ANSWER
    assert len(found["stream"]["pieces"]) > 3
    assert found["stream"]["usage"] == found["invoke"]["usage"]


def test_reasoning(found):
    assert "7" in found["reasoning"]["reasoning"]
    assert found["reasoning"]["text"] == "3 + 4 = 7."


def test_tools(found):
    (call,) = found["tools"]["calls"]
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    assert "18 degrees" in found["tools"]["answer"]
    assert found["tools_stream"]["text"] == "I will check. "
    assert [call["args"] for call in found["tools_stream"]["calls"]] == [{"city": "Rome"}, {"city": "Oslo"}]


def test_structured_output(found):
    assert found["structured"]["class"] == found["structured"]["schema"] == ANNA
    assert isinstance(found["structured"]["mode"], dict)  # no schema is sent: any JSON will do


def test_logprobs(found):
    assert "".join(found["logprobs"]["tokens"]) == found["logprobs"]["text"] == ANSWER


def test_completion(found):
    assert found["completion"] == {"whole": "Hello, world!", "pieces": ["Hello", ",", " world", "!", ""]}


def test_embeddings(found):
    one, two = found["embeddings"]["documents"]
    assert found["embeddings"]["query"] == pytest.approx(one, abs=1e-5)
    assert one != pytest.approx(two, abs=1e-2)


def test_options(found):
    assert found["options"] == {"stopped": " w0 w1 w2 ", "cut": "length"}


def test_an_unknown_model_is_a_404(found):
    assert found["errors"] == ["ResponseError", "model 'nowhere' not found (status code: 404)"]
