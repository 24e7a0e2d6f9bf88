"""Models of CTranslate2 in a server, from their creation to their removal."""

import json
import os
import subprocess

import pytest
from tests.e2e.server import PUNA, serving

QUESTION = "<|user|>Why is the sky blue?<|assistant|>"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("home") / "models", OMP_WAIT_POLICY="passive") as running:
        yield running


@pytest.fixture(scope="module")
def created(server, decoder, encoder):
    def create(name, folder, *more):
        command = [PUNA, "create", name, "--backend", "ctranslate2", "--folder", folder, *more]
        subprocess.run(command, env=os.environ | {"PUNA_GRPC_HOST": server.grpc}, check=True, timeout=120)

    create("talker", decoder, "--option", "compute_type=int8")
    create("embedder", encoder)


@pytest.mark.usefixtures("created")
class TestServer:
    def test_it_generates(self, server):
        body = {"model": "talker", "prompt": QUESTION, "raw": True, "options": {"temperature": 0, "num_predict": 24}}
        whole = server.json("/api/generate", body | {"stream": False})
        assert whole["response"].startswith("The sky is blue because")
        assert (whole["prompt_eval_count"], whole["eval_count"], whole["done_reason"]) == (10, 24, "length")
        status, _, text = server.ask("/api/generate", body)
        parts = [json.loads(line)["response"] for line in text.splitlines()]
        assert (status, "".join(parts)) == (200, whole["response"])
        assert len(parts) > 20

    def test_a_stop_string_ends_the_text(self, server):
        options = {"temperature": 0, "stop": [" because"]}
        body = {"model": "talker", "prompt": QUESTION, "raw": True, "stream": False, "options": options}
        answer = server.json("/api/generate", body)
        assert (answer["response"], answer["done_reason"]) == ("The sky is blue", "stop")

    def test_it_embeds(self, server):
        texts = ["Why is the sky blue?", "the color of the sky", "Count from one to ten."]
        answer = server.json("/api/embed", {"model": "embedder", "input": texts})
        first, near, far = answer["embeddings"]
        assert len(first) == 128
        assert sum(map(float.__mul__, first, near)) > sum(map(float.__mul__, first, far))

    @pytest.mark.parametrize(
        ("path", "body", "expected", "text"),
        [
            ("generate", {"model": "talker", "prompt": "a", "format": "json"}, 501, "structured output"),
            ("generate", {"model": "talker", "prompt": "a", "images": ["aGk="]}, 400, "does not support multimodal"),
            ("generate", {"model": "embedder", "prompt": "a"}, 501, "embeds and does not generate"),
            ("embed", {"model": "talker", "input": "a"}, 501, "does not support embeddings"),
        ],
    )
    def test_what_the_engine_cannot_do_is_refused_by_name(self, server, path, body, expected, text):
        status, _, answer = server.ask(f"/api/{path}", body | {"stream": False})
        assert status == expected
        assert text in json.loads(answer)["error"]

    def test_what_only_tunes_sampling_is_ignored(self, server):
        options = {"temperature": 0, "num_predict": 4, "seed": 7, "min_p": 0.5, "presence_penalty": 2}
        body = {"model": "talker", "prompt": QUESTION, "raw": True, "stream": False, "options": options}
        assert server.json("/api/generate", body)["response"] == "The sky is blue"

    def test_show_says_what_it_is(self, server):
        done = subprocess.run(
            [PUNA, "show", "talker", "--modelfile"],
            env=os.environ | {"PUNA_GRPC_HOST": server.grpc},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "BACKEND ctranslate2" in done.stdout
        assert "BACKEND_OPTION compute_type" in done.stdout
        assert server.json("/api/show", {"model": "talker"})["details"]["format"] == "ctranslate2"
