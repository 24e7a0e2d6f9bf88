"""A real Prometheus scrapes a server that is busy, and every panel of the Grafana board has something to show."""

import json
import os
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from tests.e2e.server import MODELS, PUNA, serving, wait_until
from tests.monitoring.conftest import Prometheus

from puna_client.v1 import models_pb2, models_pb2_grpc

ROOT = Path(__file__).parents[2]
BOARD = json.loads((ROOT / "tools/grafana/puna.json").read_text())
ADDRESS = re.compile(r"metrics on http://([^/\s]+)/metrics")
CLIENTS = 3
SECONDS = 75
"""How long the load may take until every query has an answer; it ends with the last one."""


def queries():
    """Yield the queries of the board as Grafana sends them, with the titles of their panels."""
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            # Grafana chooses the interval from the width of the panel, and at least four scrapes.
            query = target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
            assert "$" not in query, query
            yield f"{panel['title']} {target['legendFormat']}", query


class Load:
    """Clients that use a server in every way that the board shows, over and over, until `close`."""

    def __init__(self, server, key):
        self._server, self._key = server, key
        self._channel = grpc.insecure_channel(server.grpc)
        self._stub = models_pb2_grpc.ModelsServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(CLIENTS + 1)
        self._running = [self._pool.submit(self._repeat, self._answers) for _ in range(CLIENTS)]
        self._running.append(self._pool.submit(self._repeat, self._trouble))

    def close(self):
        """Stop."""
        self._ended.set()
        self._pool.shutdown()
        self._channel.close()

    def check(self):
        """Raise what a client raised."""
        for each in self._running:
            if each.done():
                each.result()

    def _repeat(self, work):
        while not self._ended.is_set():
            work()

    def _open(self, path, **body):
        headers = {"Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(self._server.url + path, json.dumps(body).encode(), headers)
        return urllib.request.urlopen(request, timeout=60)

    def _post(self, path, **body):
        """Return the status of an answer, after reading it. A host may be killed meanwhile, which is an error too."""
        try:
            with self._open(path, **body) as answer:
                answer.read()
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def _answers(self):
        # The second answer repeats itself, which speculative decoding needs.
        options = {"num_predict": 64}
        self._post("/api/generate", model="llamita", prompt="Hi", options=options)
        self._post("/api/generate", model="scripted", prompt="b", raw=True, options={"num_predict": 200})
        self._post("/api/embed", model="llamita-embed", input=["a", "b"])
        # REST is served in the same process and is no call over gRPC.
        self._stub.ListModels(models_pb2.ListModelsRequest(), metadata=self._metadata, timeout=60)

    def _trouble(self):
        """An unknown model, a client that leaves, a model that is unloaded, and a host that is killed."""
        assert self._post("/api/generate", model="nosuch", prompt="b") == 404
        with self._open("/api/generate", model="scripted", prompt="b", raw=True, options={"num_predict": -1}) as answer:
            answer.readline()
            # Long enough for a heartbeat, which comes every second.
            self._ended.wait(3)
        self._post("/api/generate", model="llamita-embed", keep_alive=0)
        hosts = self._server.hosts()
        if hosts:
            os.kill(hosts[0], signal.SIGKILL)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with keys, its models, and the key of a client and of Prometheus."""
    folder = tmp_path_factory.mktemp("monitored")
    keys = {"PUNA_KEYS": str(folder / "keys.json")}
    # The heartbeat, which tells how full a cache is, comes every second.
    own = {"PUNA_METRICS_HOST": "127.0.0.1:0", "PUNA_MAX_HOST_SILENCE_SECONDS": "12", "PUNA_MAX_LOOP_SECONDS": "2"}
    with serving(folder / "models", **keys, **own) as running:
        running.upload("llamita", ROOT / "core/puna/demo/llamita.gguf")
        running.upload("llamita-embed", ROOT / "core/puna/demo/llamita-embed.gguf")
        running.upload("scripted", MODELS / "scripted.gguf")

        def make(name, allowed):
            command = [PUNA, "key", "create", name, "--allow", allowed]
            done = subprocess.run(
                command, env=os.environ | keys, capture_output=True, text=True, check=True, timeout=60
            )
            return done.stdout.strip()

        running.client, running.reader = make("client", "inference,read"), make("prometheus", "read")
        wait_until(lambda: running.ask("/api/tags")[0] == 401)
        yield running


@pytest.fixture(scope="module")
def prometheus(server, program, tmp_path_factory):
    target = ADDRESS.search(server.greeting)[1]
    running = Prometheus(program, tmp_path_factory.mktemp("prometheus"), target, server.reader)
    yield running
    running.close()


def test_every_query_of_the_board_is_answered_under_load(server, prometheus):
    wanted = dict(queries())
    assert len(wanted) > 30
    load = Load(server, server.client)
    try:

        def unanswered():
            load.check()
            for title in [title for title, query in wanted.items() if prometheus.values(query)]:
                del wanted[title]
            return wanted

        with suppress(AssertionError):
            wait_until(lambda: not unanswered(), SECONDS)
        load.check()
        assert not wanted
    finally:
        load.close()


def test_the_figures_make_sense(prometheus):
    (used,) = prometheus.values('max(max_over_time(puna:kv_cache_usage_perc{model_name="scripted"}[2m]))')
    assert 0 < used <= 1
    # The model may be loaded anew at the moment of the question.
    cache = 'puna:cache_config_info{model_name="llamita",block_size="1",cache_dtype="f16"}'
    assert prometheus.values(f"last_over_time({cache}[2m])") == [1]
    (tokens,) = prometheus.values('puna:key_tokens_total{key="client",kind="output"}')
    (all_tokens,) = prometheus.values("sum(puna:generation_tokens_total)")
    assert 0 < tokens <= all_tokens
    (killed,) = prometheus.values('sum(puna:host_deaths_total{status="SIGKILL"})')
    assert killed >= 1


def test_every_scrape_was_read_whole(prometheus):
    (target,) = prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    # Every sample of the server is of a type that Prometheus knows, and has a help text.
    described = prometheus.ask("metadata")
    ours = {name: kinds[0] for name, kinds in described.items() if name.startswith("puna:")}
    assert len(ours) > 25
    assert all(kind["type"] in ("counter", "gauge", "histogram") and kind["help"] for kind in ours.values())


def test_a_key_is_needed(server):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{ADDRESS.search(server.greeting)[1]}/metrics", timeout=30)
    refused.value.close()
    assert refused.value.code == 401
