"""Hosts die while answers stream, mostly near their ends: as many ends as streams begun, each done or an error."""

import contextlib
import json
import os
import random
import signal
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tests.e2e.server import MODELS, serving, wait_until
from tests.hostile.bounds import unharmed

from puna_client.v1 import generate_pb2, generate_pb2_grpc, models_pb2, models_pb2_grpc

ROUNDS = 12
TOKENS = 40
MESSAGES = [{"role": "user", "content": "b"}]


@pytest.fixture(scope="module")
def mortal(tmp_path_factory):
    """A server with a model that says the same for ever."""
    with serving(tmp_path_factory.mktemp("home") / "models") as running:
        running.upload("scripted", MODELS / "scripted.gguf", template="{{ .Prompt }}")
        yield running


def lines(server, path, body):
    """The lines of a streamed answer that are not empty."""
    with server.open(path, {"model": "scripted", "stream": True} | body, timeout=30) as answer:
        return [line.strip() for line in answer.read().splitlines() if line.strip()]


def native(path, body):
    def end(server):
        last = json.loads(lines(server, path, body | {"options": {"num_predict": TOKENS}})[-1])
        return "error" if "error" in last else "done" if last["done"] else None

    return end


def events(path, body, done):
    def end(server):
        last = lines(server, path, body)[-1].removeprefix(b"data: ")
        if last in done:
            return "done"
        value = json.loads(last)
        if value.get("type") in done:
            return "done"
        return "error" if "error" in value or value.get("type") in ("error", "response.failed") else None

    return end


def over_grpc(server):
    request = generate_pb2.GenerateRequest(model="scripted", text="b", raw=True)
    request.options.sampling.max_output_tokens = TOKENS
    with grpc.insecure_channel(server.grpc) as channel:
        try:
            messages = list(generate_pb2_grpc.GenerateServiceStub(channel).StreamGenerate(request, timeout=30))
        except grpc.RpcError as error:
            return "error" if error.code() is grpc.StatusCode.UNAVAILABLE else str(error.code())
    return "done" if messages[-1].HasField("done") else None


def host_of(server):
    """The process id of the model's host; one that no process has if it is not loaded."""
    with grpc.insecure_channel(server.grpc) as channel:
        loaded = models_pb2_grpc.ModelsServiceStub(channel).ListLoadedModels(models_pb2.ListLoadedModelsRequest())
    return loaded.models[0].process_id if loaded.models else 2**22 + 1


FACES = {
    "generate": native("/api/generate", {"prompt": "b", "context": [1]}),
    "chat": native("/api/chat", {"messages": MESSAGES}),
    "completions": events("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": TOKENS}, {b"[DONE]"}),
    "texts": events("/v1/completions", {"prompt": "b", "max_tokens": TOKENS}, {b"[DONE]"}),
    "messages": events("/v1/messages", {"messages": MESSAGES, "max_tokens": TOKENS}, {"message_stop"}),
    "responses": events(
        "/v1/responses", {"input": "b", "max_output_tokens": TOKENS}, {"response.completed", "response.incomplete"}
    ),
    "grpc": over_grpc,
}


def ended(server, face):
    """How a stream ended; None: without a word."""
    try:
        return FACES[face](server)
    except urllib.error.HTTPError as error:
        with error:
            return "error" if b"error" in error.read() else None
    except (OSError, IndexError, ValueError) as error:  # the connection was cut, or nothing came
        return f"cut: {error!r}"


def test_every_face_ends_with_done(mortal):
    assert {face: ended(mortal, face) for face in FACES} == dict.fromkeys(FACES, "done")


def test_every_stream_ends_with_a_word_when_hosts_die(mortal):
    dice = random.Random(12)
    wanted = [*FACES] * 2
    ends = []
    with unharmed(mortal, within=5.0), ThreadPoolExecutor(len(wanted)) as threads:
        start = time.monotonic()
        list(threads.map(lambda face: ended(mortal, face), wanted))
        usual = time.monotonic() - start
        for _ in range(ROUNDS):
            wait_until(lambda: mortal.ask("/api/generate", {"model": "scripted", "keep_alive": -1})[0] == 200)
            begun = [threads.submit(ended, mortal, face) for face in wanted]
            time.sleep(usual * dice.uniform(0.2, 1.1))
            with contextlib.suppress(ProcessLookupError):
                os.kill(host_of(mortal), signal.SIGKILL)
            ends += [(face, each.result()) for face, each in zip(wanted, begun, strict=True)]
        wait_until(lambda: ended(mortal, "generate") == "done")  # the last death may not have been seen yet
    assert len(ends) == ROUNDS * len(wanted)
    assert [(face, end) for face, end in ends if end not in ("done", "error")] == []
    assert {"done", "error"} == {end for _, end in ends}
