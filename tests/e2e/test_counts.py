"""Token counts and rankings over REST, with real models."""

import base64
import json

import pytest
from tests.e2e.server import MODELS
from tests.plugins.llama_cpp.sample_images import png

USER = {"role": "user", "content": "What is the weather in Paris?"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Get the weather in a city", "input_schema": WEATHER}
TURNS = [
    USER,
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "a", "name": "get_weather", "input": {"city": "Paris"}}],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "18 degrees"}]},
]
REQUESTS = {
    "a message": {"messages": [USER]},
    "a system message": {"messages": [USER], "system": "Your name is Clara."},
    "a conversation": {"messages": [USER, {"role": "assistant", "content": "Rain."}, USER]},
    "tools": {"messages": TURNS, "tools": [TOOL]},
    "a forced tool": {"messages": [USER], "tools": [TOOL], "tool_choice": {"type": "any"}},
    "thinking": {"messages": [USER], "thinking": {"type": "enabled", "budget_tokens": 1024}},
    "no thinking": {"messages": [USER], "thinking": {"type": "disabled"}},
    "too long": {"messages": [USER] * 700},
    "one long message": {"messages": [{"role": "user", "content": "weather " * 9000}]},
}


def both(server, request):
    """Return the count of a request, and the number of prompt tokens when it runs."""
    counted = server.json("/v1/messages/count_tokens", request)
    usage = server.json("/v1/messages", {"max_tokens": 1, **request})["usage"]
    # As in Anthropic's API, the input tokens of an answer are those that were not cached.
    return counted["input_tokens"], usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_count_is_that_of_the_request(server, request_):
    counted, evaluated = both(server, {"model": "llamita"} | request_)
    assert counted == evaluated > 5


@pytest.mark.parametrize("request_", [REQUESTS["tools"], REQUESTS["too long"]], ids=["tools", "too long"])
def test_a_count_with_a_template_of_the_models_file(server, request_):
    server.upload("toolful", MODELS / "jinja-tools.gguf")
    counted, evaluated = both(server, {"model": "toolful"} | request_)
    assert counted == evaluated > 5


def test_images_count(server):
    server.upload("seeing", MODELS / "chatter.gguf", MODELS / "chatter-eye.gguf", template="{{ .Prompt }}")
    image = base64.b64encode(png(64, 48)).decode()
    source = {"type": "base64", "media_type": "image/png", "data": image}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    request = {"model": "seeing", "messages": [{"role": "user", "content": content}]}
    counted, evaluated = both(server, request)
    assert counted == evaluated
    without = server.json(
        "/v1/messages/count_tokens", {"model": "seeing", "messages": [{"role": "user", "content": content[1:]}]}
    )
    assert counted > without["input_tokens"]


def test_errors_of_counts_have_anthropics_form(server):
    status, _, body = server.ask("/v1/messages/count_tokens", {"model": "nowhere", "messages": [USER]})
    assert status == 404
    assert json.loads(body)["type"] == "error"
    assert json.loads(body)["error"]["type"] == "not_found_error"


def test_a_conversation_tokenized_is_what_a_chat_evaluates(server):
    request = {"model": "llamita", "messages": [USER], "options": {"num_predict": 1}}
    tokenized = server.json("/api/tokenize", request)
    answer = server.json("/api/chat", request | {"stream": False})
    assert tokenized["count"] == len(tokenized["tokens"]) == answer["prompt_eval_count"]
    back = server.json("/api/detokenize", {"model": "llamita", "tokens": tokenized["tokens"]})
    assert USER["content"] in back["content"]


def test_a_text_there_and_back(server):
    text = "Zoë said: 🙂\nyes"
    tokenized = server.json("/api/tokenize", {"model": "llamita", "text": text, "with_pieces": True})
    back = server.json("/api/detokenize", {"model": "llamita", "tokens": tokenized["tokens"]})
    assert back["text"] == text
    assert len(tokenized["pieces"]) == tokenized["count"] > 3
    status, _, body = server.ask("/api/detokenize", {"model": "llamita", "tokens": [10**6]})
    assert status == 400
    assert "1000000" in json.loads(body)["error"]


def test_documents_are_ranked(server):
    server.upload("ranker", MODELS / "ranker.gguf")
    request = {
        "model": "ranker",
        "query": "why is the sky blue?",
        "documents": ["the sky is blue", {"text": "dog run"}],
    }
    answer = server.json("/v1/rerank", request)
    scores = [each["relevance_score"] for each in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(each["index"] for each in answer["results"]) == [0, 1]
    assert answer["usage"]["total_tokens"] > 10
    (best,) = server.json("/v1/rerank", request | {"top_n": 1, "return_documents": True})["results"]
    assert best["index"] == answer["results"][0]["index"]
    assert best["document"]["text"] in ("the sky is blue", "dog run")
    # A document longer than the context is cut.
    assert len(server.json("/v1/rerank", request | {"documents": ["blue " * 9000]})["results"]) == 1
    assert server.ask("/v1/rerank", request | {"model": "llamita"})[0] == 501
