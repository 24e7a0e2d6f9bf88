"""Images on every route, to a model with vision and to one without. Counts and texts are Ollama's."""

import base64
import json

import grpc
import pytest
from tests.e2e.server import MODELS
from tests.plugins.llama_cpp.sample_images import png

from puna_client.v1 import chat_pb2, chat_pb2_grpc, generate_pb2, generate_pb2_grpc

OPTIONS = {"temperature": 0, "num_predict": 6, "num_thread": 1}
TEMPLATE = "{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} so"
BROKEN = '{"error":{"code":400,"message":"Failed to load image or audio file","type":"invalid_request_error"}}'
BLIND = (
    '{"error":{"code":400,"message":"Multimodal data provided, but model does not support multimodal requests.",'
    '"type":"invalid_request_error"}}'
)


@pytest.fixture(scope="module")
def seeing(server):
    """The server, with `seer`, which sees, and `blind`, which is the same without a projector."""
    server.upload("seer", MODELS / "chatter.gguf", MODELS / "chatter-eye.gguf", template=TEMPLATE)
    server.upload("blind", MODELS / "chatter.gguf", template=TEMPLATE)
    return server


def text64(data):
    return base64.b64encode(data).decode()


def generate(model, picture):
    return "/api/generate", {"model": model, "prompt": "what", "images": [picture], "options": OPTIONS, "stream": False}


def chat(model, picture):
    message = {"role": "user", "content": "what", "images": [picture]}
    return "/api/chat", {"model": model, "messages": [message], "options": OPTIONS, "stream": False}


def openai(model, picture):
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    message = {"role": "user", "content": [image, {"type": "text", "text": "what"}]}
    return "/v1/chat/completions", {"model": model, "messages": [message], "temperature": 0, "max_tokens": 6}


def responses(model, picture):
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{picture}"}
    message = {"role": "user", "content": [image, {"type": "input_text", "text": "what"}]}
    return "/v1/responses", {"model": model, "input": [message], "temperature": 0, "max_output_tokens": 6}


def anthropic(model, picture):
    source = {"type": "base64", "media_type": "image/png", "data": picture}
    message = {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "what"}]}
    return "/v1/messages", {"model": model, "messages": [message], "temperature": 0, "max_tokens": 6}


ROADS = (generate, chat, openai, responses, anthropic)
ANSWER = (" wind star wind river star wind", 24)
ANSWERS = dict.fromkeys(ROADS, ANSWER) | {openai: (" wind lake river wind night star", 26)}  # two messages there


def parts(answer):
    """Return the text of an answer of any road, and how many tokens its prompt had."""
    if "response" in answer:
        return answer["response"], answer["prompt_eval_count"]
    if "message" in answer:
        return answer["message"]["content"], answer["prompt_eval_count"]
    if "choices" in answer:
        return answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]
    return (answer.get("output") or [answer])[0]["content"][0]["text"], answer["usage"]["input_tokens"]


@pytest.mark.parametrize("road", ROADS)
def test_a_picture_is_seen(seeing, road):
    assert parts(seeing.json(*road("seer", text64(png(1))))) == ANSWERS[road]
    other = parts(seeing.json(*road("seer", text64(png(2)))))
    assert (other[0] != ANSWERS[road][0], other[1]) == (True, ANSWERS[road][1])


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(("model", "picture", "text"), [("seer", b"none", BROKEN), ("blind", png(1), BLIND)])
def test_what_cannot_be_seen_is_refused(seeing, road, model, picture, text):
    status, _, body = seeing.ask(*road(model, text64(picture)))
    error = json.loads(body)["error"]
    assert (status, error if isinstance(error, str) else error["message"]) == (400, text)


def test_a_broken_picture_is_refused_before_a_stream_begins(seeing):
    path, body = chat("seer", text64(png(1)[:200]))
    status, headers, text = seeing.ask(path, body | {"stream": True})
    assert (status, json.loads(text)) == (400, {"error": BROKEN})
    assert headers["content-type"].startswith("application/json")


def test_a_demanded_form_is_not_what_is_wrong_with_a_broken_picture(seeing):
    path, body = generate("seer", text64(b"none"))
    status, _, text = seeing.ask(path, body | {"format": "json"})
    assert (status, json.loads(text)) == (400, {"error": BROKEN})


def test_it_says_that_it_sees(seeing):
    shown = seeing.json("/api/show", {"model": "seer"})
    assert shown["capabilities"] == ["completion", "vision"]
    assert shown["projector_info"]["clip.projector_type"] == "mlp"
    assert seeing.json("/api/show", {"model": "blind"})["capabilities"] == ["completion"]


def test_every_picture_of_a_conversation_counts(seeing):
    """16 vectors for each beside the text, of which every letter is a token here."""
    said = [
        {"role": "user", "content": "what", "images": [text64(png(1))]},
        {"role": "assistant", "content": "hill"},
        {"role": "user", "content": "then [img] it", "images": [text64(png(2))]},
    ]
    request = {"model": "seer", "messages": said, "options": OPTIONS, "stream": False}
    drawn = seeing.json("/api/chat", request | {"_debug_render_only": True})["_debug_info"]
    assert drawn["image_count"] == 2
    text = drawn["rendered_template"]
    assert text == "[img-0]what sohillthen [img-1] it so"
    assert seeing.json("/api/chat", request)["prompt_eval_count"] == 1 + len("what sohillthen  it so") + 2 * 16


def test_parts_keep_their_order_over_grpc_and_rest(seeing):
    """Ollama's own format has a marker for the same order."""
    options = {"sampling": {"temperature": 0, "max_output_tokens": 6}, "runtime": {"threads": 1}}
    parts = [{"text": "what "}, {"media": {"data": png(1)}}, {"text": " this"}]
    with grpc.insecure_channel(seeing.grpc) as channel:
        chats = chat_pb2_grpc.ChatServiceStub(channel)
        asked = chat_pb2.ChatRequest(model="seer", messages=[{"role": "user", "parts": parts}], options=options)
        answer = chats.Chat(asked, timeout=60)
        asked.render_only = True
        assert chats.Chat(asked, timeout=60).rendered.text == "what [img-0] this so"
        asked.messages[0].content = "both"
        with pytest.raises(grpc.RpcError) as caught:
            chats.Chat(asked, timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "messages[0].parts stands in place of content and media" in caught.value.details()
    marked = {"role": "user", "content": "what [img] this", "images": [text64(png(1))]}
    native = seeing.json("/api/chat", {"model": "seer", "messages": [marked], "options": OPTIONS, "stream": False})
    assert native["message"]["content"] == answer.message.content
    source = {"type": "base64", "media_type": "image/png", "data": text64(png(1))}
    blocks = [{"type": "text", "text": "what "}, {"type": "image", "source": source}, {"type": "text", "text": " this"}]
    body = {"model": "seer", "messages": [{"role": "user", "content": blocks}], "temperature": 0, "max_tokens": 6}
    assert seeing.json("/v1/messages", body)["content"][0]["text"] == answer.message.content


def test_over_grpc(seeing):
    with grpc.insecure_channel(seeing.grpc) as channel:
        answers = generate_pb2_grpc.GenerateServiceStub(channel)
        chats = chat_pb2_grpc.ChatServiceStub(channel)
        options = {"sampling": {"max_output_tokens": 3}}
        ask = {"model": "seer", "text": "what [img-0]", "raw": True, "options": options}
        request = generate_pb2.GenerateRequest(**ask, media=[{"data": png(1)}])
        assert answers.Generate(request, timeout=60).finish.usage.prompt_tokens == 1 + len("what ") + 16
        broken = chat_pb2.ChatRequest(
            model="seer", messages=[{"role": "user", "content": "what", "media": [{"data": b"none"}]}]
        )
        for call in (chats.Chat, lambda request, timeout: list(chats.StreamChat(request, timeout=timeout))):
            with pytest.raises(grpc.RpcError) as caught:
                call(broken, timeout=60)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "Failed to load image" in caught.value.details()
