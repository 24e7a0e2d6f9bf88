"""The servers and models that every client is tested with. README.md lists them for those who write clients."""

import asyncio
import contextlib
import os
import queue
import subprocess
import threading
from pathlib import Path

import grpc
from tests.certificates import Certificates
from tests.e2e.server import MODELS, PUNA, serving
from tests.registry.conftest import Side
from tests.registry.front import Slow, fronting

from puna_client.v1 import models_pb2, models_pb2_grpc, options_pb2

LANGUAGES = ("go", "java", "node", "python", "rust")
PLUGIN = Path(__file__).parents[1] / "plugins/scripted"
"""A backend that does what the prompt says. Its docstring lists the commands."""
SETTINGS = {
    "OLLAMA_NUM_PARALLEL": "1",
    "OLLAMA_MAX_LOADED_MODELS": "9",
    "OLLAMA_CONTEXT_LENGTH": "2048",
    # Threads that wait in a loop for each other would take whole seconds where the clients want the cores too.
    "OMP_WAIT_POLICY": "passive",
    # Clients and servers share two cores, so a turn of the event loop may wait for one.
    "PUNA_MAX_LOOP_SECONDS": "2",
}
SCRIPTED = {"phases": "size_bytes=1", "steady": "size_bytes=2", "silent": "size_bytes=3", "stuck": "load=stall"}
"""Models of the scripted backend, each with an option: models with equal options and files share a host."""
PRELOADED = ("llamita", "llamita-embed", "phases", "steady", "silent")


def _environment(**more):
    path = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
    return SETTINGS | {"PYTHONPATH": path} | more


def _puna(*words, **environment):
    done = subprocess.run([PUNA, *words], env=os.environ | environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextlib.contextmanager
def start(store, **environment):
    """Run a server on the store until the block ends. Hosts that clients crash may leave tracebacks in its log."""
    with serving(store, tracebacks=True, **_environment(**environment)) as running:
        yield running


@contextlib.contextmanager
def start_plain(store):
    """Run a server that has loaded all models but `stuck`, so that no other load is in the way of its load."""
    with start(store) as running, grpc.insecure_channel(running.grpc) as channel:
        forever = options_pb2.RequestOptions(keep_alive=options_pb2.KeepAlive(forever=True))
        for name in PRELOADED:
            models_pb2_grpc.ModelsServiceStub(channel).LoadModel(
                models_pb2.LoadModelRequest(name=name, options=forever)
            )
        yield running


def stock(store):
    """Make a store with the demo models and those of the scripted backend."""
    with start(store) as running:
        for name, option in SCRIPTED.items():
            command = ["create", name, "--file", MODELS / "scripted.gguf", "--backend", "scripted"]
            _puna(*command, "--format", "scripted", "--option", option, PUNA_GRPC_HOST=running.grpc)


@contextlib.contextmanager
def start_secure(store, folder):
    """Run a server with TLS and keys; it has the attributes `ca`, `key` and `limited_keys` (by language)."""
    authority = Certificates(folder)
    certificate, private = authority.issue("server")
    tls = {"PUNA_TLS_CERTIFICATE": str(certificate), "PUNA_TLS_KEY": str(private), "PUNA_TLS_CA": str(authority.ca)}
    keys = str(folder / "keys.json")
    key = _puna("key", "create", "client", "--allow", "all", PUNA_KEYS=keys)
    limit = ("--requests-per-minute", "1")
    limited = {each: _puna("key", "create", f"limited-{each}", *limit, PUNA_KEYS=keys) for each in LANGUAGES}
    with start(store, PUNA_KEYS=keys, **tls) as running:
        running.ca, running.key, running.limited_keys = authority.ca, key, limited
        yield running


def serve_script(folder, store):
    """Write a program that serves the store on a gRPC address, its argument; return its path."""
    script = folder / "serve"
    settings = {"OLLAMA_MODELS": str(store), "OLLAMA_HOST": "127.0.0.1:0"}
    lines = [f"export {name}='{value}'" for name, value in _environment(**settings).items()]
    script.write_text("\n".join(["#!/bin/sh", *lines, 'export PUNA_GRPC_HOST="$1"', f"exec '{PUNA}' serve", ""]))
    script.chmod(0o755)
    return script


@contextlib.contextmanager
def slow_registry(registry):
    """Run a front before a registry which sends a blob of 3 MB within a second; give its address."""
    loop = asyncio.new_event_loop()
    started, stop = queue.SimpleQueue(), asyncio.Event()

    async def serve():
        async with fronting(registry) as front:
            front.on(Slow(chunk=64 << 10, seconds=0.02), times=1 << 30)
            started.put(front.host)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield started.get(timeout=20)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def push(folder, registry, path):
    """Push a model of 3 MB to a registry. Each path has bytes of its own."""
    side, name = Side(folder / "pushed"), f"{registry}/{path}"
    side.make(name, size=3_000_000)
    asyncio.run(side.push(name))
