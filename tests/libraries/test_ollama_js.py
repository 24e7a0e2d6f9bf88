"""The ollama package of npm."""

import json

SCRIPT = "drive_ollama.mjs"
ANSWER = "The capital of France is Paris."


def test_generate(found):
    answer = found["generate"]
    assert answer["response"] == ANSWER
    assert answer["done_reason"] == "stop"
    assert found["generateStream"] == {
        "pieces": ["Hello", ",", " world", "!", ""],
        "done": [False, False, False, False, True],
    }


def test_chat(found):
    assert "Clara" in found["chat"]["content"]
    assert "".join(found["chatStream"]) == ANSWER
    assert len(found["chatStream"]) > 3
    assert found["thinking"]["thinking"]
    assert found["thinking"]["content"] == ANSWER


def test_tools(found):
    (call,) = found["tools"]["calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("get_weather", {"city": "Paris"})
    assert "18 degrees" in found["tools"]["answer"]


def test_format(found):
    assert json.loads(found["format"]) == {"name": "Anna", "age": 31}


def test_embeddings(found):
    one, two = found["embed"]["embeddings"]
    assert one != two
    assert len(one) == len(two) == len(found["legacyEmbeddings"]["embedding"]) == 32


def test_models_are_made_copied_listed_and_deleted(found):
    manage = found["manage"]
    assert manage["system"] == "Be brief."
    assert manage["parameters"].split() == ["seed", "7"]
    assert {"made:latest", "copied:latest"} <= set(manage["listed"])
    assert manage["deleted"] == [{"status": "success"}] * 2
    assert manage["loaded"]


def test_version(found):
    assert [part.isdigit() for part in found["version"]["version"].split(".")] == [True] * 3


def test_a_stream_can_be_broken_off(found):
    assert found["abort"] == "AbortError"


def test_an_unknown_model_is_a_404(found):
    assert found["errors"] == ["ResponseError", 404, "model 'nowhere' not found"]
