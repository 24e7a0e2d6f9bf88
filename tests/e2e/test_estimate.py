"""Estimates of a running server, against what the same server then loads; and how full a cache is."""

import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tests.e2e.server import MODELS, PUNA, serving, wait_until

from puna_client.v1 import models_pb2, models_pb2_grpc

DEMO = Path(__file__).parents[2] / "core/puna/demo"
# A cache that is zeroed at once shows in the memory of the process.
EAGER = "[backends.llama_cpp]\nlazy_kv_cache = false\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "puna").mkdir()
    (home / "puna" / "config.toml").write_text(EAGER)
    environment = {
        "XDG_CONFIG_HOME": str(home),
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_CONTEXT_LENGTH": "4096",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
        # The heartbeat comes twelve times in this time.
        "PUNA_MAX_HOST_SILENCE_SECONDS": "12",
    }
    with serving(home / "models", **environment) as running:
        running.upload("llamita", DEMO / "llamita.gguf")
        running.upload("scripted", MODELS / "scripted.gguf")
        yield running


@pytest.fixture(scope="module")
def models(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield models_pb2_grpc.ModelsServiceStub(channel)


def resident(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_loading_takes_what_was_estimated(server, models):
    found = models.EstimateModel(models_pb2.EstimateModelRequest(name="llamita"))
    # The host of the estimate is gone, and nothing is loaded.
    assert server.hosts() == []
    assert not models.ListLoadedModels(models_pb2.ListLoadedModelsRequest()).models
    estimate = found.estimate
    loaded = models.LoadModel(models_pb2.LoadModelRequest(name="llamita")).loaded
    assert (estimate.slots, estimate.context_length) == (4, loaded.context_length) == (loaded.slots, 2048)
    assert estimate.total_bytes - estimate.process_bytes == pytest.approx(loaded.size_bytes, rel=0.02)
    # A full batch of each kind touches the buffers for computing.
    server.json("/api/generate", {"model": "llamita", "prompt": "a b " * 600, "raw": True, "stream": False})
    assert estimate.total_bytes == pytest.approx(resident(loaded.process_id), rel=0.1)
    assert (found.backend, found.fit) == ("llama_cpp", models_pb2.MODEL_FIT_FITS)
    assert found.largest_context_length >= 2048


def test_a_question_may_choose_slots_and_type(server, models):
    few = models.EstimateModel(models_pb2.EstimateModelRequest(name="llamita", slots=1, kv_cache_type="f16"))
    many = models.EstimateModel(models_pb2.EstimateModelRequest(name="llamita", slots=8, kv_cache_type="f16"))
    assert many.estimate.devices[0].kv_cache_bytes == 8 * few.estimate.devices[0].kv_cache_bytes
    for wrong in ({"slots": -1}, {"kv_cache_type": "q99"}):
        with pytest.raises(grpc.RpcError) as raised:
            models.EstimateModel(models_pb2.EstimateModelRequest(name="llamita", **wrong))
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_command_says_whether_a_model_fits(server):
    environment = os.environ | {"PUNA_GRPC_HOST": server.grpc}
    command = [PUNA, "show", "llamita", "--fit", "--context-length", "1024", "--slots", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    words = done.stdout.split()
    assert words[words.index("slots") + 1] == "2"
    assert words[words.index("length") + 1] == "1024"
    # Another context would replace the model that another test has loaded.
    assert words[words.index("fits") + 1].startswith("yes")


def test_heartbeats_tell_how_full_the_cache_is(server, models):
    def cache():
        (found,) = (
            each
            for each in models.ListLoadedModels(models_pb2.ListLoadedModelsRequest()).models
            if each.model.name == "scripted:latest"
        )
        return found.kv_cache

    ask = {"model": "scripted", "prompt": "b", "raw": True, "stream": False, "options": {"num_predict": 2000}}
    seen = threading.Event()

    def generate():
        while not seen.is_set():
            server.json("/api/generate", ask)

    server.json("/api/generate", {"model": "scripted"})
    with ThreadPoolExecutor() as threads:
        busy = threads.submit(generate)
        try:
            wait_until(lambda: cache().active_tokens > 0)
        finally:
            seen.set()
        busy.result()
    assert (cache().total_tokens % 4, cache().type) == (0, "q8_0")
    wait_until(lambda: cache().cached_tokens > 0 and not cache().active_tokens)
