"""Kill -9 at any moment: what is listed is whole, what is there is what it is called, and work goes on.

PUNA_KILLS says how many processes die (200 by default, which takes half a minute; `make soak` says more).
"""

import asyncio
import contextlib
import hashlib
import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.e2e.server import MODELS, serving
from tests.registry.front import Slow

from puna.gguf import reader as gguf
from puna.gguf import writer as gguf_write
from puna.gguf.writer import Part
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.layout import manifest as manifests
from puna.models.storage.digest import is_digest
from puna.models.store import ModelStore

KILLS = int(os.environ.get("PUNA_KILLS", "200"))
ROOT = Path(__file__).parents[2]
PULLED = 4


def variant(path, number):
    """Write the scripted model with other metadata, so that it answers the same and is another blob."""
    source = MODELS / "scripted.gguf"
    with path.open("wb") as file:
        gguf_write.with_text(Part(source, gguf.read(source, arrays=True)), "general.name", f"variant {number}", file)
    return path


class Watched:
    """A store that is looked at between kills."""

    def __init__(self, root):
        self.root = root
        self.right = {}
        """What files looked like when their content was found right."""

    def check(self):
        """See that manifests are whole and name only blobs that are there, and that blobs are what they are called."""
        store = ModelStore(self.root)
        for path in store.blobs.files():
            if not path.exists():
                continue  # a link whose file is gone; nobody may name it, see below
            status = path.stat()
            file_identity = (path.name, status.st_ino, status.st_size, status.st_mtime_ns)
            if file_identity not in self.right:
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name.partition("-")[2]
                self.right[file_identity] = True
        for name in store.names():
            data = self.root.joinpath("manifests", *name.parts).read_bytes()
            manifest = manifests.loads(data)
            for layer in (manifest.config, *manifest.layers):
                assert is_digest(layer.digest), (name, data)
                assert store.blobs.path(layer.digest).stat().st_size == layer.size, (name, layer)
        listed = {each.name.full for each in store.list()}
        assert listed == {name.full for name in store.names()}


@pytest.fixture
def remote(side, docker, front, tmp_path):
    """Models on the registry, that share a layer, and the names that they have there."""
    names = [f"{front.host}/kills/m{number}:v1" for number in range(PULLED)]

    async def fill():
        one = side()
        for number, name in enumerate(names):
            digest = one.store.blobs.add(variant(tmp_path / "variant.gguf", number).read_bytes()).digest
            request = CreateRequest(name=name, files={"a.gguf": digest}, system="Shared.", as_is=True)
            for _ in create(one.store, request):
                pass
            await one.push(name)

    return names, fill


@contextlib.contextmanager
def nursery(root, *arguments):
    """Give a function that brings a worker to life and returns its process id."""
    errors = root.with_name("errors")
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.registry.nursery", str(root), *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
        with process:

            def bear(seed):
                process.stdin.write(f"{seed}\n")
                process.stdin.flush()
                return int(process.stdout.readline())

            yield bear
            process.stdin.close()
            process.wait(20)
    assert errors.read_text() == ""


def kill(pid):
    with contextlib.suppress(ProcessLookupError):  # one that has ended by itself has said why, see `nursery`
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.001)
    pytest.fail(f"{pid} does not die")


async def test_two_processes_on_one_store_that_are_killed_again_and_again(remote, docker, front, tmp_path):
    names, fill = remote
    await fill()
    front.on(Slow(1 << 16, 0.003), times=1 << 60)
    front.seen.clear()
    files = tmp_path / "files"
    files.mkdir()
    for number in range(2):
        variant(files / f"file{number}.gguf", f"file {number}")
    seed = random.randrange(1 << 30)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    chance = random.Random(seed)
    watched = Watched(tmp_path / "store")
    listed = 0
    with nursery(watched.root, ",".join(names), docker, str(files)) as bear:
        for number in range(KILLS // 2):
            pids = [bear(f"{seed}-{number}-{each}") for each in range(2)]
            for pid in pids:
                await asyncio.sleep(chance.uniform(0.005, 0.12))
                await asyncio.to_thread(kill, pid)
            await asyncio.to_thread(watched.check)
            listed = max(listed, len(ModelStore(watched.root).names()))
    assert listed >= PULLED
    assert resumed(front) > 0
    await asyncio.to_thread(all_load, watched.root)


def resumed(front):
    """Count requests for bytes that begin within a part: something of it was there."""
    starts = [
        int(each.headers["Range"].partition("=")[2].partition("-")[0]) for each in front.seen if "Range" in each.headers
    ]
    size = (MODELS / "scripted.gguf").stat().st_size
    return sum(start % (size // 4) > 2000 for start in starts)


def all_load(root):
    """Have a server load each model that is listed."""
    with serving(root) as server:
        models = server.json("/api/tags")["models"]
        assert models
        for model in models:
            name = model["name"]
            if model["capabilities"] == ["embedding"]:
                assert server.json("/api/embed", {"model": name, "input": "Hello", "keep_alive": 0})["embeddings"]
                continue
            question = {"model": name, "prompt": "Hello", "stream": False, "keep_alive": 0, "raw": True}
            assert server.json("/api/generate", question)["response"]


async def test_whole_servers_that_are_killed(remote, front, tmp_path):
    names, fill = remote
    await fill()
    front.on(Slow(1 << 16, 0.003), times=1 << 60)
    watched = Watched(tmp_path / "store")
    chance = random.Random()
    for _ in range(max(KILLS // 100, 1)):
        await asyncio.to_thread(killed_at_work, watched.root, names, chance)
        await asyncio.to_thread(watched.check)
    await asyncio.to_thread(all_load, watched.root)


def killed_at_work(root, names, chance):
    """Have a server pull, create, copy, push and delete, and kill it meanwhile."""
    over = threading.Event()

    def work(server, number):
        mine = random.Random(number)
        while not over.is_set():
            local, name = f"local{mine.randrange(3)}", mine.choice(names)
            path, body, method = mine.choice(
                [
                    ("/api/pull", {"model": name, "insecure": True}, "POST"),
                    ("/api/create", {"model": local, "from": name, "system": f"{mine.random()}"}, "POST"),
                    ("/api/copy", {"source": name, "destination": local}, "POST"),
                    ("/api/push", {"model": name, "insecure": True}, "POST"),
                    ("/api/delete", {"model": local}, "DELETE"),
                    ("/api/delete", {"model": name}, "DELETE"),
                ]
            )
            with contextlib.suppress(OSError, http.client.HTTPException):
                server.ask(path, body, method=method)

    with serving(root) as server:
        workers = [threading.Thread(target=work, args=(server, number)) for number in range(4)]
        for each in workers:
            each.start()
        time.sleep(chance.uniform(0.2, 1.5))
        server.process.kill()
        server.process.wait(20)
        over.set()
        for each in workers:
            each.join()
