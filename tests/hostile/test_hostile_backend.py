"""A backend that breaks its contract, behind a whole server: its clients hear of it, and no other request does."""

import json
import os
import time
from pathlib import Path

import pytest
from tests.e2e.server import MODELS, serving, wait_until
from tests.hostile.bounds import unharmed

HOSTILE = Path(__file__).parents[1] / "plugins" / "hostile"
SECRET = "the-words-of-the-prompt"
WORDS = {
    "cancelled": "CancelledError",
    "generator_exit": "GeneratorExit",
    "interrupt": "KeyboardInterrupt",
    "exit": "SystemExit: 3",
    "group": "two at once",
    "str_raises": "without a readable text",
    "str_surrogate": "half",
    "str_long": "é",
    "deep": "recursion",
    "stop_async": "StopAsyncIteration",
    "gen_surrogate": "lone surrogate",
    "gen_cancels_itself": "CancelledError",
    "gen_negative": "output_tokens",
    "gen_none": "async generator",
}


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A server with a hostile backend and models for it: `evil`, and `dying`, whose host ends during the load."""
    path = os.pathsep.join(filter(None, [str(HOSTILE), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": path, "PUNA_MAX_STEP_SECONDS": "3", "OLLAMA_LOAD_TIMEOUT": "3s"}
    with serving(tmp_path_factory.mktemp("home") / "models", **settings) as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        for name, options in {"evil": {}, "dying": {"load": "dies"}, "stuck": {"load": "blocks"}}.items():
            running.upload(name, MODELS / "scripted.gguf", backend="hostile", backend_options=options)
        yield running


def generate(server, model, prompt, **more):
    """Send a prompt; return the status and the last line of the answer."""
    body = {"model": model, "prompt": prompt, "raw": True, "options": {"num_predict": 5}} | more
    status, _, text = server.ask("/api/generate", body, timeout=30)
    return status, json.loads(text.splitlines()[-1])


def serves(server):
    """Whether another model is served."""
    return generate(server, "scripted", "b", stream=False)[1].get("done")


@pytest.mark.parametrize("stream", [True, False])
def test_every_failure_reaches_the_client(evil, stream):
    with unharmed(evil):
        for word, text in WORDS.items():
            _, answer = generate(evil, "evil", f"{SECRET} {word}", stream=stream)
            assert text in answer["error"], word
            assert generate(evil, "evil", "hello", stream=stream)[1]["done"], word
        assert serves(evil)


def test_tracebacks_are_in_the_log_under_the_models_name(evil):
    generate(evil, "evil", f"{SECRET} quote")
    wait_until(lambda: "evil:latest: the backend failed in a sequence: ValueError" in evil.log())
    assert "puna_hostile.py" in evil.log()
    assert SECRET not in evil.log()


@pytest.mark.parametrize("word", ["emb_few", "emb_many", "emb_unequal", "emb_text", "emb_nan", "emb_none"])
def test_vectors_that_are_wrong_are_no_answer(evil, word):
    status, _, text = evil.ask("/api/embed", {"model": "evil", "input": ["a", word]})
    assert (status >= 400, "error" in json.loads(text)) == (True, True)


@pytest.mark.parametrize("call", ["gen_never_yields", "emb_never"])
def test_a_call_that_never_returns_ends(evil, call):
    with unharmed(evil):
        if call.startswith("gen"):
            status, answer = generate(evil, "evil", call, stream=False)
        else:
            status, _, text = evil.ask("/api/embed", {"model": "evil", "input": [call]}, timeout=30)
            answer = json.loads(text)
        assert status == 500
        assert "made no step for 3 seconds" in answer["error"]
        assert generate(evil, "evil", "hello")[1]["done"]


def test_a_load_that_hangs_is_given_up_and_holds_up_no_other_model(evil):
    with unharmed(evil):
        began = time.monotonic()
        status, answer = generate(evil, "stuck", "a", stream=False)
        assert (status, "timed out waiting for llama-server to start" in answer["error"]) == (500, True)
        assert time.monotonic() - began < 20
        assert serves(evil)


def test_a_host_that_dies_while_loading_is_not_started_at_the_pace_of_requests(evil):
    answers = [generate(evil, "dying", "a", stream=False) for _ in range(2)]
    assert [status for status, _ in answers] == [500, 500]
    first = answers[0][1]["error"]
    assert first.startswith("llama-server process has terminated: exit status 9")
    started = evil.log().count("loading dying:latest")
    began = time.monotonic()
    for _ in range(20):
        status, answer = generate(evil, "dying", "a", stream=False)
        assert (status, answer["error"].startswith(first)) == (500, True)
    pauses = time.monotonic() - began
    more = evil.log().count("loading dying:latest") - started
    # Pauses of one, two, four seconds: as many starts as they allow, however long the requests took.
    assert more <= 1 + pauses
    assert more < 20
    assert serves(evil)
