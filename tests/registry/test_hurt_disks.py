"""Disks that are full or may not be written: a clear word, nothing half-written, and all is well afterwards.

Files of a server may not grow beyond a limit (RLIMIT_FSIZE), which needs no rights and no file system of one's own. For
a folder that may not be written, root gives up for a while its right to overrule modes.
"""

import asyncio
import ctypes
import errno
import hashlib
import json
import os
import resource
import tempfile
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from tests.core.models.conftest import Workshop
from tests.e2e.server import MODELS, serving

from puna.errors import StoreFailedError, TransferError
from puna.model_name import ModelName
from puna.models.upkeep import doctor
from puna.models.upkeep.report import Report

LIMIT = 300_000
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1 << 1, 1 << 2


@contextmanager
def small_files(server):
    """Let a server write no file beyond the limit."""
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    yield
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def bound_by_modes():
    """Have this thread, and those that it starts, obey the modes of files like anybody else."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    capabilities = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, capabilities) == 0, os.strerror(ctypes.get_errno())
    before = capabilities[0]
    capabilities[0] &= ~(CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH)
    assert libc.capset(header, capabilities) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        capabilities[0] = before
        libc.capset(header, capabilities)


@contextmanager
def read_only(root):
    """Make a folder and all below it such that nobody may write there."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        with bound_by_modes():
            yield
    finally:
        for folder in folders:
            folder.chmod(0o755)


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def faults(store):
    (report,) = [each for each in doctor.examine(store) if isinstance(each, Report)]
    return report.faults


@pytest.fixture
async def large(side, front, name):
    """The name of a model on the registry that is larger than the limit."""
    one = side()
    one.make(name, size=1_000_000)
    await one.push(name)
    return name


async def test_a_disk_that_is_full(large, tmp_path):
    await asyncio.to_thread(fill, large, tmp_path)


def fill(large, tmp_path):
    pull = {"model": large, "insecure": True, "stream": False}
    with serving(tmp_path / "models") as server:
        data = (MODELS / "scripted.gguf").read_bytes()
        with small_files(server):
            status, _, text = server.ask("/api/pull", pull)
            assert status == 500
            assert json.loads(text)["error"].endswith("-partial: file too large")
            _, _, text = server.ask("/api/create", {"model": "m", "from": "llamita", "system": "x" * LIMIT * 2})
            assert json.loads(text.splitlines()[-1])["error"] == "file too large"
            with pytest.raises(AssertionError, match="file too large"):
                post(server, data)
            assert {each["name"] for each in server.json("/api/tags")["models"]} == {
                "llamita:latest",
                "llamita-embed:latest",
            }
        assert server.json("/api/pull", pull) == {"status": "success"}
        server.upload("m", MODELS / "scripted.gguf")
        question = {"model": "m", "prompt": "Hello", "stream": False, "raw": True}
        assert server.json("/api/generate", question)["response"]
    assert not [name for name in files(tmp_path / "models") if "partial" in name]


def post(server, data):
    request = urllib.request.Request(f"{server.url}/api/blobs/sha256:{hashlib.sha256(data).hexdigest()}", data)
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(error.read().decode()) from error


async def test_a_store_that_may_not_be_written(pushed, side):
    two = side()
    workshop = Workshop(two.store.root)
    workshop.create_plain("m")
    before = files(two.store.root)
    await asyncio.to_thread(try_everything, two, workshop, pushed.name)
    assert files(two.store.root) == before
    await two.pull(pushed.name)
    assert faults(two.store) == 0


def try_everything(two, workshop, name):
    """Try it in threads of its own: those that are there already may do what they like."""
    with read_only(two.store.root):
        assert [each.name.shortest for each in two.store.list()] == ["m:latest"]
        for attempt in (
            lambda: two.store.copy(ModelName.parse("m"), ModelName.parse("n")),
            lambda: two.store.delete(ModelName.parse("m")),
            lambda: workshop.create("n", base="m", system="Hello."),
            lambda: workshop.upload(b"hello"),
        ):
            with pytest.raises(PermissionError) as caught:
                attempt()
            assert "/store" in str(StoreFailedError(caught.value))
        with pytest.raises(TransferError, match=r"^open .*-partial: permission denied$"):
            asyncio.run(two.pull(name))
        two.store.prune()
        assert faults(two.store) == 0


async def test_a_disk_without_room_for_another_file(pushed, side, monkeypatch):
    two = side()
    workshop = Workshop(two.store.root)
    workshop.create_plain("m")
    mkstemp = tempfile.mkstemp

    def full(*what, **how):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(how["dir"]))

    monkeypatch.setattr(tempfile, "mkstemp", full)
    with pytest.raises(TransferError, match="no space left on device"):
        await two.pull(pushed.name)
    for attempt in (
        lambda: workshop.create("n", base="m", system="Hello."),
        lambda: two.store.copy(ModelName.parse("m"), ModelName.parse("n")),
    ):
        with pytest.raises(OSError, match="No space left on device"):
            attempt()
    assert [name.shortest for name in two.store.names()] == ["m:latest"]
    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    two.store.delete(ModelName.parse("m"))  # what makes room needs none
    await two.pull(pushed.name)
    assert faults(two.store) == 0
