"""The example host in Go: the contract of every backend, and a server that serves it."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.e2e.server import PUNA, command, parents, serving, wait_until
from tests.nodes.running import contract_on_nodes

from puna.backend import ModelSpec, Sampling, SequenceRequest
from puna.plugins import Registry
from puna.process import cluster_certificates as certificates
from puna.runtime.pool import ModelPool
from puna.runtime.requirements import ModelRequirements
from puna.settings import Settings
from puna.testing import BackendContract, collect

TEXT = Path(__file__).parents[2] / "README.md"
"""A text of long paragraphs, with characters of several bytes."""


class TestGo(BackendContract):
    prompt = "The server "
    model_format = "text"

    @pytest.fixture(autouse=True)
    def _built(self, plugins):
        type(self).manifest = plugins / "go_markov/backend.toml"

    def spec(self):
        return ModelSpec(path=str(TEXT), format="text", context_length=256, parallel=2)


@pytest.fixture(scope="module")
def nodes(plugins, tmp_path_factory):
    """Nodes that have the Go host, on which contract tests start theirs."""
    cluster = tmp_path_factory.mktemp("cluster")
    certificates.make(cluster)
    with contract_on_nodes(cluster, PUNA_PLUGINS_FOLDER=str(plugins)) as running:
        yield running


class TestGoOnNodes(TestGo):
    @pytest.fixture(autouse=True)
    def _on_nodes(self, nodes):
        yield
        type(self).ran_on_nodes = any("runs go_markov" in each.log() for each in nodes)

    @classmethod
    def teardown_class(cls):
        super().teardown_class()
        assert cls.ran_on_nodes


async def test_its_own_option_reaches_the_host(plugins):
    """An order of one byte knows only which letters follow each other; eight bytes repeat pieces of the text."""

    async def text(**options):
        settings = Settings(plugins_folder=plugins, plugins=("go_markov",), backend_options={"go_markov": options})
        spec = ModelSpec(path=str(TEXT), format="text", context_length=256)
        want = ModelRequirements(key="m", name="m", format="text", spec=spec)
        request = SequenceRequest(prompt="The server ", max_tokens=12, sampling=Sampling(temperature=0.0))
        async with ModelPool(Registry.discover(settings), settings) as pool, pool.lease(want) as lease:
            return (await collect(lease.model, request)).text

    assert await text(order=8) in TEXT.read_text()
    assert await text(order=1) not in TEXT.read_text()


@pytest.fixture(scope="module")
def server(plugins, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("home") / "models", PUNA_PLUGINS_FOLDER=str(plugins)) as running:
        create = [PUNA, "create", "writer", "--backend", "go_markov", "--file", TEXT, "--option", "order=8"]
        subprocess.run(create, env=os.environ | {"PUNA_GRPC_HOST": running.grpc}, check=True, timeout=60)
        yield running


def test_a_server_generates_with_it(server):
    options = {"temperature": 0, "num_predict": 12}
    body = {"model": "writer", "prompt": "The server ", "raw": True, "options": options}
    status, _, text = server.ask("/api/generate", body)
    *parts, last = [json.loads(line) for line in text.splitlines()]
    assert status == 200
    assert "".join(each["response"] for each in parts) in TEXT.read_text()
    assert (last["prompt_eval_count"], last["eval_count"], last["done_reason"]) == (11, 12, "length")


def test_a_server_embeds_with_it(server):
    answer = server.json("/api/embed", {"model": "writer", "input": ["one text", "one text", "another"]})
    first, second, third = answer["embeddings"]
    assert first == second != third
    assert len(first) == 64


def test_a_host_that_is_killed_is_started_again(server):
    body = {"model": "writer", "prompt": "The ", "raw": True, "stream": False, "options": {"num_predict": 3, "seed": 1}}
    before = server.json("/api/generate", body)["response"]
    (host,) = [pid for pid in parents() if b"go-host" in command(pid) and parents()[pid] == server.process.pid]
    os.kill(host, signal.SIGKILL)
    # The server learns of the end a moment after it. A request in between fails, as those that were running.
    wait_until(lambda: host not in parents() and not server.json("/api/ps")["models"])
    assert server.json("/api/generate", body)["response"] == before
