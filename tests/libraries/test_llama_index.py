"""The llama-index-llms-ollama package."""

SCRIPT = "drive_llama_index.py"
ANSWER = "The capital of France is Paris."


def test_complete(found):
    assert found["complete"]["text"] == ANSWER
    assert {"eval_count", "prompt_eval_count", "total_duration"} <= set(found["complete"]["raw"])


def test_streams(found):
    for step in ("stream", "stream_chat", "stream_chat_async"):
        assert "".join(found[step]) == ANSWER
        assert len(found[step]) > 3


def test_chat(found):
    assert "Clara" in found["chat"]
    assert found["chat_async"] == ANSWER


def test_thinking(found):
    assert found["thinking"] == {"text": "3 + 4 = 7.", "kinds": ["thinking", "text"]}


def test_tools(found):
    assert found["tools"] == [["get_weather", {"city": "Paris"}]]


def test_structured_output(found):
    assert found["structured"] == {"name": "Anna", "age": 31}


def test_options(found):
    assert found["options"] == " w0 w1 w2"


def test_an_unknown_model_is_a_404(found):
    assert found["errors"] == ["ResponseError", "model 'nowhere' not found (status code: 404)"]
