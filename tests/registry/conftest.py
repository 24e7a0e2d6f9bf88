"""A real registry, a front before it, and stores that exchange models through them."""

import contextlib
import itertools
import os
import random
import re
import subprocess
from contextlib import aclosing

import pytest
from tests.core.models.conftest import write_gguf
from tests.e2e.server import wait_until
from tests.registry.front import fronting
from tests.registry.installed import docker_registry
from tests.registry.limits import QUICK

from puna.model_name import ModelName
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.layout import manifest as manifests
from puna.models.registry.authorization import Identity
from puna.models.registry.registries import Registries
from puna.models.store import ModelStore

CONFIG = """
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:0"}}
"""
NUMBERS = itertools.count()


@contextlib.contextmanager
def running(folder):
    """Run docker-registry on a free port; give its address."""
    config = folder / "config.yml"
    config.write_text(CONFIG.format(folder=folder / "data"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([docker_registry(), "serve", config], env=environment, stdout=file, stderr=file)
    try:
        match = wait_until(lambda: re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()) or process.poll())
        if not isinstance(match, re.Match):
            pytest.fail(f"docker-registry did not start: {log.read_text()}")
        yield match[1]
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def docker(tmp_path_factory):
    """The address of a docker-registry."""
    with running(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
async def front(docker):
    """A front of one's own before it."""
    async with fronting(docker) as front:
        yield front


class Side:
    """A store with its registry client."""

    def __init__(self, root, *, limits=QUICK, identity=None, no_prune=False):
        self.store = ModelStore(root, no_prune=no_prune)
        self.registries = Registries(self.store, identity or Identity(), limits)

    def make(self, name, size=300_000, **fields):
        """Make a model of random bytes."""
        weights = random.Random(str(name)).randbytes(size - size % 4)
        data = write_gguf(("general.architecture", "str", "zed"), tensors=(("v.x", (len(weights) // 4,), 0, weights),))
        digest = self.store.blobs.add(data).digest
        for _ in create(self.store, CreateRequest(name=name, files={"a.gguf": digest}, **fields)):
            pass
        return digest

    def manifest(self, name):
        parts = ModelName.parse(name).parts
        return self.store.root.joinpath("manifests", *parts).read_bytes()

    def blobs(self, name):
        """Contents by digest."""
        found = manifests.loads(self.manifest(name)).digests
        return {digest: self.store.blobs.path(digest).read_bytes() for digest in found}

    def files(self):
        """Names of everything among the blobs."""
        folder = self.store.blobs.folder
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    async def pull(self, name, *, insecure=True):
        async with aclosing(self.registries.pull(ModelName.parse(name), insecure=insecure)) as steps:
            return [step async for step in steps]

    async def push(self, name, *, insecure=True):
        async with aclosing(self.registries.push(ModelName.parse(name), insecure=insecure)) as steps:
            return [step async for step in steps]


@pytest.fixture
def side(tmp_path):
    """Make stores."""
    numbers = itertools.count()

    def make(**how):
        return Side(tmp_path / f"store{next(numbers)}", **how)

    return make


@pytest.fixture
def name(front):
    """A name that nobody had before, on the front."""
    return f"{front.host}/tests/m{next(NUMBERS)}:v1"


@pytest.fixture
async def pushed(side, front, name):
    """The side that a model on the registry came from, with its name. The front has forgotten all of it."""
    one = side()
    one.digest = one.make(name, template="{{ .Prompt }}", system="Be brief.")
    await one.push(name)
    front.seen.clear()
    one.name = name
    return one
