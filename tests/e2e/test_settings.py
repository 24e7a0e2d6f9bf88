"""Every setting of the scheduler and option of loading changes what a server does: none is read and forgotten."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from tests.e2e.server import MODELS, PUNA, serving, wait_until

from puna_client.v1 import generate_pb2, generate_pb2_grpc, models_pb2, models_pb2_grpc, server_pb2, server_pb2_grpc

BUSY = "server busy, please try again.  maximum pending requests exceeded"


@pytest.fixture
def serve(tmp_path):
    """Runs a server with settings as given and the models `scripted` and `chatter`, on a store of its own."""
    with ExitStack() as running:

        def serve(**environment):
            server = running.enter_context(serving(tmp_path / "models", **environment))
            for name in ("scripted", "chatter"):
                server.upload(name, MODELS / f"{name}.gguf", template="{{ .Prompt }}")
            return server

        yield serve


def load(server, model, **options):
    return server.ask("/api/generate", {"model": model, "prompt": "b", "stream": False, "options": options})


def loaded(server):
    return {each["name"].partition(":")[0]: each for each in server.json("/api/ps")["models"]}


def queue(channel):
    answer = models_pb2_grpc.ModelsServiceStub(channel).ListLoadedModels(models_pb2.ListLoadedModelsRequest())
    return [(each.active_requests, each.queued_requests) for each in answer.models], answer.pending_requests


def line(channel):
    answer = server_pb2_grpc.ServerServiceStub(channel).ListRequests(server_pb2.ListRequestsRequest())
    return sorted((each.method, each.queue_position) for each in answer.requests)


def test_sequences_at_once_context_and_number_of_models(serve):
    # An answer without a limit ends after ten contexts; at 512 tokens some ended before the table was asked for.
    server = serve(OLLAMA_NUM_PARALLEL="2", OLLAMA_CONTEXT_LENGTH="2048", OLLAMA_MAX_LOADED_MODELS="1")
    load(server, "chatter", num_predict=1)
    assert loaded(server)["chatter"]["context_length"] == 2048
    endless = generate_pb2.GenerateRequest(model="scripted", text="b", raw=True)
    with grpc.insecure_channel(server.grpc) as channel, ExitStack() as calls:
        generating = generate_pb2_grpc.GenerateServiceStub(channel)
        streams = [generating.StreamGenerate(endless) for _ in range(3)]
        for stream in streams:
            calls.callback(stream.cancel)
        wait_until(lambda: queue(channel) == ([(2, 1)], 0))
        urgent = generate_pb2.GenerateRequest(model="scripted", text="b", raw=True, options={"priority": 1})
        calls.callback(generating.Generate.future(urgent).cancel)
        wait_until(lambda: queue(channel) == ([(2, 2)], 0))
        assert line(channel) == [("Generate", 1), ("StreamGenerate", 0), ("StreamGenerate", 0), ("StreamGenerate", 2)]
        assert list(loaded(server)) == ["scripted"]  # which had the other one go
        firsts = [next(stream).progress for stream in streams]
        assert max(progress.queued.position for progress in firsts) > 0
        table = subprocess.run(
            [PUNA, "ps"], env={"PUNA_GRPC_HOST": server.grpc}, capture_output=True, text=True, check=True
        ).stdout
        assert re.search(r"CONTEXT +UNTIL +BACKEND +QUEUE", table)
        assert re.search(r" 2048 .* 2 +$", table.splitlines()[1])


def test_a_full_queue_refuses_and_a_load_that_stalls_is_given_up(serve):
    server = serve(OLLAMA_MAX_QUEUE="0", OLLAMA_LOAD_TIMEOUT="1ms")
    with ThreadPoolExecutor() as threads, grpc.insecure_channel(server.grpc) as channel:
        first = threads.submit(load, server, "scripted")
        wait_until(lambda: queue(channel)[1] == 1)
        status, _, text = load(server, "chatter")
        assert (status, BUSY in text.decode()) == (503, True)
        status, _, text = first.result()
        assert (status, b"timed out waiting for llama-server to start - " in text) == (500, True)


def test_flash_attention_and_the_type_of_the_cache(serve):
    # llama.cpp refuses the one without the other, so it was told of both; this model could have the cache.
    status, _, text = load(serve(OLLAMA_FLASH_ATTENTION="0", OLLAMA_KV_CACHE_TYPE="Q8_0"), "scripted")
    assert (status, b"quantized V cache" in text) == (500, True)


def test_options_of_loading(fresh):
    with grpc.insecure_channel(fresh.grpc) as channel:

        def stream(**runtime):
            request = generate_pb2.GenerateRequest(model="scripted", text="b " * 250, raw=True)
            request.options.sampling.max_output_tokens = 2
            for name, value in runtime.items():
                setattr(request.options.runtime, name, value)
            answers = list(generate_pb2_grpc.GenerateServiceStub(channel).StreamGenerate(request))
            return sum(answer.progress.HasField("prefill") for answer in answers)

        def threads():
            [host] = fresh.hosts()
            return int(re.search(r"Threads:\s+(\d+)", Path(f"/proc/{host}/status").read_text())[1])

        assert stream() == 0
        few, [host] = threads(), fresh.hosts()
        assert stream(batch_size=32) > 0  # of 15, but what is overtaken is not told
        assert fresh.hosts() != [host]
        assert stream(threads=20) == 0
        assert threads() > few + 12  # others come and go
        stream(context_length=777)
        assert loaded(fresh)["scripted"]["context_length"] == 777
        [host] = fresh.hosts()
        stream(context_length=777)
        assert fresh.hosts() == [host]  # the same again loads nothing
