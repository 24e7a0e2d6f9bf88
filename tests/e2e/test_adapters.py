"""Models of one base with adapters of their own, over REST and gRPC."""

import os
import signal
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.server import MODELS, serving, wait_until

PROMPT = "the wind and the river"
ALPHA = b"adapter.lora.alpha" + struct.pack("<I", 6)
NAMES = ("plain", "calm", "wild", "spoken")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A server with a base, two models with adapters for it, and one that differs from the base in its texts alone."""
    store = tmp_path_factory.mktemp("home") / "models"
    with serving(store, OLLAMA_MAX_LOADED_MODELS="1", OLLAMA_CONTEXT_LENGTH="512") as running:
        base = {"m.gguf": running.blob((MODELS / "chatter.gguf").read_bytes())}
        lora = (MODELS / "chatter-lora.gguf").read_bytes()
        wild = lora.replace(ALPHA + struct.pack("<f", 8.0), ALPHA + struct.pack("<f", -6.0))
        running.json("/api/create", {"model": "plain", "files": base, "stream": False})
        for name, adapter in (("calm", lora), ("wild", wild)):
            adapters = {"a.gguf": running.blob(adapter)}
            running.json("/api/create", {"model": name, "files": base, "adapters": adapters, "stream": False})
        texts = {"template": "{{ .System }} {{ .Prompt }}", "system": "x", "parameters": {"temperature": 0.3}}
        running.json("/api/create", {"model": "spoken", "from": "plain", "stream": False, **texts})
        yield running


@pytest.fixture
def server(shop):
    """The server, with no model loaded."""
    for each in shop.json("/api/ps")["models"]:
        shop.json("/api/generate", {"model": each["name"], "keep_alive": 0})
    wait_until(lambda: not shop.hosts())
    return shop


def write(server, name, **fields):
    request = {"model": name, "prompt": PROMPT, "raw": True, "stream": False, **fields}
    request["options"] = {"temperature": 0, "num_predict": 24, "num_thread": 1}
    return server.json("/api/generate", request)["response"]


def loaded(server):
    return {each["name"].partition(":")[0]: each for each in server.json("/api/ps")["models"]}


def test_they_share_one_host_and_none_of_their_words(server):
    alone = {}
    for name in NAMES:
        alone[name] = write(server, name)
        write(server, name, keep_alive=0)
        wait_until(lambda: not server.hosts())
    assert alone["plain"] == alone["spoken"]
    assert len(set(alone.values())) == 3
    with ThreadPoolExecutor(8) as threads:
        names = [*NAMES, *NAMES]
        assert list(threads.map(lambda name: write(server, name), names)) == [alone[name] for name in names]
    assert len(server.hosts()) == 1
    # As in Ollama, names that differ in their texts alone are one loaded model, under the name that came first.
    rows = loaded(server)
    assert set(rows) in ({"plain", "calm", "wild"}, {"spoken", "calm", "wild"})
    weights = (MODELS / "chatter.gguf").stat().st_size * 0.8
    assert sum(each["size"] for each in rows.values()) < 3 * min(each["size"] for each in rows.values()) + 2 * weights


def test_each_has_a_keep_alive_of_its_own(server):
    expected = write(server, "calm")
    write(server, "wild", keep_alive="1h")
    assert set(loaded(server)) == {"calm", "wild"}
    first, others = server.hosts(), loaded(server)["wild"]["size"]
    write(server, "calm", keep_alive=0)
    wait_until(lambda: set(loaded(server)) == {"wild"})
    assert loaded(server)["wild"]["expires_at"] > "2026"
    # The weights that the first one had loaded are counted for the one that is left.
    assert loaded(server)["wild"]["size"] > others
    assert write(server, "calm") == expected
    assert server.hosts() == first
    # Another base takes the place of all of them.
    server.json("/api/generate", {"model": "llamita", "prompt": "a", "stream": False, "options": {"num_predict": 1}})
    assert set(loaded(server)) == {"llamita"}


def test_an_adapter_that_does_not_fit_is_refused_as_it_is_alone(server):
    def refused():
        status, _, body = server.ask("/api/embed", {"model": "odd", "input": "a"})
        assert status >= 400
        assert b"mismatch" in body
        return body

    fields = {"files": {"m.gguf": server.blob((MODELS / "embedder.gguf").read_bytes())}, "stream": False}
    fields["adapters"] = {"a.gguf": server.blob((MODELS / "chatter-lora.gguf").read_bytes())}
    server.json("/api/create", {"model": "odd", **fields})
    alone = refused()
    server.json("/api/create", {"model": "base", "files": fields["files"], "stream": False})
    server.json("/api/embed", {"model": "base", "input": "a"})
    hosts = server.hosts()
    assert refused() == alone
    assert server.hosts() == hosts
    assert set(loaded(server)) == {"base"}


def test_a_host_that_dies_is_replaced_for_all_of_them(server):
    expected = {name: write(server, name) for name in ("calm", "wild")}
    (host,) = server.hosts()
    os.kill(host, signal.SIGKILL)
    assert {name: write(server, name) for name in expected} == expected
    assert len(server.hosts()) == 1
    assert server.hosts() != [host]
