"""Trained models: a chat model's greedy texts against llama.cpp's own, an embedding model against its formulas."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tests.core.models.convert import forward
from tests.e2e.server import PUNA, serving

PROMPTS = ("The capital of France is", "Write one sentence about the sea.", "1, 2, 3, 4,", "def fibonacci(n):")
LENGTH = 40
GREEDY = f"""
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=512, n_gpu_layers=0, n_threads=2, flash_attn=True, verbose=False)
texts = []
for prompt in json.loads(sys.argv[2]):
    tokens = model.tokenize(prompt.encode(), add_bos=True, special=True)
    made = []
    for token in model.generate(tokens, temp=0.0, repeat_penalty=1.0, reset=True):
        if len(made) == {LENGTH} or token == model.token_eos():
            break
        made.append(token)
    texts.append(model.detokenize(made).decode(errors="replace"))
print(json.dumps(texts))
"""
SENTENCES = (
    "the weather in oslo is cold and wet",
    "a cat sat on the mat",
    "how do i sort a list in python ?",
    "music",
    "some words are unusual : electroencephalography , antidisestablishmentarianism",
)


@pytest.fixture(scope="module")
def exact(tmp_path_factory, smollm):
    """A server whose kernels have the order of additions of ggml, with the chat model as `smollm`."""
    with serving(tmp_path_factory.mktemp("home") / "models", PUNA_KERNELS="exact") as running:
        running.upload("smollm", smollm)
        yield running


def test_greedy_texts_are_those_of_llama_cpp(exact, smollm):
    """llama-cpp-python's own loop, in a process without Puna's kernels, writes the same text."""
    command = [sys.executable, "-c", GREEDY, str(smollm), json.dumps(PROMPTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    options = {"temperature": 0, "num_predict": LENGTH, "num_ctx": 512, "repeat_penalty": 1.0}
    found = [
        exact.json(
            "/api/generate",
            {"model": "smollm", "prompt": prompt, "raw": True, "stream": False, "options": options},
            timeout=120,
        )["response"]
        for prompt in PROMPTS
    ]
    assert found == json.loads(done.stdout)


def test_it_answers_a_question_by_its_own_template(server):
    messages = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    options = {"temperature": 0, "num_predict": 30}
    body = {"model": "smollm", "messages": messages, "stream": False, "options": options}
    assert "Paris" in server.json("/api/chat", body, timeout=120)["message"]["content"]


def test_structured_output(server):
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    body = {"model": "smollm", "prompt": "Where is the Eiffel tower?", "format": schema, "stream": False}
    assert json.loads(server.json("/api/generate", body, timeout=120)["response"])["city"] in ("Paris", "Rome")


@pytest.fixture(scope="module")
def embeds(server, minilm, tmp_path_factory):
    """The server with the embedding model, converted from its folder as `minilm`."""
    folder = tmp_path_factory.mktemp("minilm")
    (folder / "Modelfile").write_text(f"FROM {minilm}\n")
    command = [PUNA, "create", "minilm", "-f", str(folder / "Modelfile")]
    environment = {"PUNA_GRPC_HOST": server.grpc, "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    return server


def test_embeddings_are_those_of_the_formulas(embeds, minilm):
    folder = _folder(minilm)
    words = (minilm / "vocab.txt").read_text(encoding="utf-8").split("\n")
    made = embeds.json("/api/embed", {"model": "minilm", "input": list(SENTENCES)}, timeout=120)["embeddings"]
    for sentence, vector in zip(SENTENCES, made, strict=True):
        expected = forward.embedding(folder, _tokens(sentence, words))
        assert np.dot(expected, vector) > 0.9999, sentence


def test_alike_sentences_are_near(embeds):
    texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell today."]
    vectors = np.array(embeds.json("/api/embed", {"model": "minilm", "input": texts})["embeddings"])
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.5 > 0.2 > far


def _folder(path):
    """Read a folder of safetensors in float32."""
    data = (path / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    tensors = {}
    for name, about in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__" or about["dtype"] != "F32":
            continue
        begin, end = about["data_offsets"]
        tensors[name] = np.frombuffer(data[8 + size + begin : 8 + size + end], np.float32).reshape(about["shape"])
    return SimpleNamespace(config=json.loads((path / "config.json").read_text()), tensors=tensors, pooling="mean")


def _tokens(sentence, words):
    """Cut words of lower-case ASCII by the longest pieces that the vocabulary has, as WordPiece is defined."""
    places = {word: place for place, word in enumerate(words)}
    out = [places["[CLS]"]]
    for word in sentence.split():
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            end = next(end for end in range(len(word), start, -1) if mark + word[start:end] in places)
            out.append(places[mark + word[start:end]])
            start = end
    return [*out, places["[SEP]"]]
