"""Files of models that a node gets from its core: both sides in one process, real TLS, and hosts that load nothing."""

import asyncio
import errno
import hashlib
import itertools
import os
import socket
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from puna.errors import LoadFailedError
from puna.node.fetching import Fetch
from puna.node.file_cache import FileCache, PartialFile
from puna.node.lease import NodeHost
from puna.runtime.errors import NodeError
from puna.runtime.file_sender import FileSender

LARGE = 9_000_000
"""Bytes that arrive in several portions."""


@pytest.fixture(autouse=True)
def apart(monkeypatch):
    """Nodes do not see the folders of the core."""
    places = Fetch._places
    monkeypatch.setattr(Fetch, "_places", lambda self, file: places(self, file)[1:])


@pytest.fixture(autouse=True)
def sent(monkeypatch):
    """The offsets from which the core sends files."""
    offsets = []
    send = FileSender.send

    async def noted(self, transfer_id, path, offset, size):
        offsets.append(offset)
        await send(self, transfer_id, path, offset, size)

    monkeypatch.setattr(FileSender, "send", noted)
    return offsets


@pytest.fixture
def gate(monkeypatch):
    """Holds what arrives after a first portion, until the event is set."""
    opened, write = threading.Event(), PartialFile.write

    def held(self, chunks):
        if self.size:
            assert opened.wait(60)
        write(self, chunks)

    monkeypatch.setattr(PartialFile, "write", held)
    yield opened
    opened.set()


@pytest.fixture
def cache(tmp_path):
    return FileCache(tmp_path / "c", 1 << 30)


@pytest.fixture
def make_blob(tmp_path):
    """Writes a file of the core's store."""

    def make_blob(content):
        folder = tmp_path / "blobs"
        folder.mkdir(exist_ok=True)
        path = folder / f"sha256-{hashlib.sha256(content).hexdigest()}"
        path.write_bytes(content)
        return path

    return make_blob


class NoProcess:
    """The process of a host that loads nothing."""

    async def stop(self):
        pass


@pytest.fixture
def bring(want, make_node):
    """Has a node get the files of a model, as a load does; returns the host that uses them, and what it is told."""
    ids = map(str, itertools.count())

    async def bring(running, node, *blobs, on_transfer=lambda *_: None, **fields):
        await node.connect()
        host, host_id = NodeHost(NoProcess(), Path()), next(ids)
        running.lease._lease.hosts[host_id] = host
        first, *others = map(str, blobs)
        spec = replace(want().spec, **({"path": first, "adapter_paths": tuple(others)} | fields))
        return host, await node._localize(node._link, host_id, spec, on_transfer)

    return bring


@pytest.fixture
def start(run_node, make_node, bring, cache):
    """Runs a node; returns what brings files to it."""

    async def start(cache=cache, shared=()):
        running = await run_node(cache=cache, shared=shared)
        return partial(bring, running, make_node(running.address))

    return start


def kept(cache):
    return {each.name: each.read_bytes() for each in (cache.folder / "files").iterdir()}


def arrived(cache):
    """How much has arrived of each file that is not complete."""
    folder = cache.folder / "partial"
    return {each.stem: each.stat().st_size for each in folder.iterdir()} if folder.exists() else {}


async def until(condition):
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def given_up(get):
    """Wait until the node has heard that its first load was cancelled."""
    host = next(iter(get.args[0].lease._lease.hosts.values()))
    await until(lambda: all(task.cancelling() for task in host.fetching))


async def test_a_node_without_the_files_gets_them_once(start, make_blob, cache, sent):
    get = await start()
    blobs = [make_blob(os.urandom(3_000_000)), make_blob(b"x"), make_blob(b"")]
    _, spec = await get(*blobs)
    assert kept(cache) == {each.name: each.read_bytes() for each in blobs}
    assert [spec.path, *spec.adapter_paths] == [str(cache.folder / "files" / each.name) for each in blobs]
    assert arrived(cache) == {}
    assert sent == [0, 0]  # the empty file needs no transfer
    await get(*blobs)
    assert sent == [0, 0]


async def test_the_folder_of_a_model_has_files_of_the_cache(start, make_blob, cache):
    get, blob = await start(), make_blob(b"weights")
    files = {"config.json": str(make_blob(b"{}")), "sub/weights": str(blob), "again": str(blob)}
    host, spec = await get(blob, path=str(blob.parent), adapter_paths=(), files=files, folder=str(blob.parent))
    assert spec.folder == host.folders[0]
    links = [Path(spec.files[name]) for name in files]
    assert [each.read_bytes() for each in links] == [b"{}", b"weights", b"weights"]
    assert {each.readlink().parent for each in links} == {cache.folder / "files"}


async def test_a_load_tells_how_many_bytes_have_arrived(start, make_blob, gate):
    get, told = await start(), []
    blob = make_blob(os.urandom(LARGE))
    getting = asyncio.create_task(get(blob, on_transfer=lambda *progress: told.append(progress)))
    await until(lambda: told and told[-1][0])
    assert 0 < told[-1][0] < LARGE
    gate.set()
    await getting
    assert told[-1] == (LARGE, LARGE)
    assert told == sorted(told)


async def test_a_shared_folder_is_used_where_its_file_is_the_right_one(start, make_blob, cache, sent, tmp_path):
    right, wrong, shared = make_blob(b"right"), make_blob(b"right too"), tmp_path / "shared"
    shared.mkdir()
    (shared / right.name).write_bytes(b"right")
    (shared / wrong.name).write_bytes(b"wrong, as")
    _, spec = await (await start(shared=[shared]))(right, wrong)
    assert spec.path == str(shared / right.name)
    assert kept(cache) == {wrong.name: b"right too"}
    assert sent == [0]


async def test_a_node_without_a_cache_uses_a_shared_folder(start, make_blob, tmp_path, sent):
    blob, shared = make_blob(b"shared"), tmp_path / "shared"
    shared.mkdir()
    (shared / blob.name).hardlink_to(blob)
    (tmp_path / "file").touch()
    get = await start(FileCache(tmp_path / "file" / "cache", 1 << 30), [shared])
    for _ in range(2):
        _, spec = await get(blob)
        assert spec.path == str(shared / blob.name)
    assert sent == []
    with pytest.raises(NodeError, match=r"a file of the model cannot be kept: .*/file"):
        await get(make_blob(b"not shared"))


async def test_a_given_up_transfer_is_continued(start, make_blob, cache, sent, gate):
    get, blob = await start(), make_blob(os.urandom(LARGE))
    getting = asyncio.create_task(get(blob))
    await until(lambda: arrived(cache).get(blob.name))
    getting.cancel()
    await given_up(get)
    gate.set()
    await until(lambda: cache.arriving(blob.name, LARGE) is None)
    await get(blob)
    assert sent[0] == 0 < sent[1] < LARGE
    assert kept(cache) == {blob.name: blob.read_bytes()}


async def test_what_a_transfer_has_left_may_be_damaged(start, make_blob, cache, sent):
    get, blob = await start(), make_blob(b"0123456789")
    cache.prepare()
    (cache.folder / "partial" / f"{blob.name}.10").write_bytes(b"01x")
    await get(blob)
    assert sent == [3, 0]
    assert kept(cache) == {blob.name: b"0123456789"}


async def test_a_broken_connection_is_replaced(run_node, make_node, bring, make_blob, cache, sent, gate):
    running = await run_node(cache=cache)
    # More than the connections hold, so that a part of it is not sent yet.
    node, blob = make_node(running.address), make_blob(os.urandom(4 * LARGE))
    getting = asyncio.create_task(bring(running, node, blob))
    await until(lambda: arrived(cache).get(blob.name))
    (connection,) = node._link.files._sockets
    connection.shutdown(socket.SHUT_RDWR)
    gate.set()
    await getting
    assert sent[0] == 0 < sent[1] < 4 * LARGE
    assert kept(cache) == {blob.name: blob.read_bytes()}


async def test_a_damaged_file_of_the_cache_is_fetched_again(start, make_blob, cache, sent):
    get, blob = await start(), make_blob(b"right")
    await get(blob)
    (cache.folder / "files" / blob.name).write_bytes(b"wrong")
    await get(blob)
    assert kept(cache) == {blob.name: b"right"}
    assert sent == [0, 0]


async def test_a_file_without_a_record_is_read_and_not_sent(start, make_blob, cache, sent):
    get, blob = await start(), make_blob(b"right")
    await get(blob)
    (cache.folder / "verified" / blob.name).unlink()
    told = []
    get = await start(FileCache(cache.folder, 1 << 30))  # the records are kept in memory too
    await get(blob, on_transfer=lambda *progress: told.append(progress))
    assert told[-1] == (5, 5)
    assert sent == [0]


async def test_a_damaged_file_of_the_core_is_named(start, make_blob, cache):
    get, blob = await start(), make_blob(b"right")
    blob.write_bytes(b"wrong")
    with pytest.raises(LoadFailedError, match=rf"unable to load model: .*{blob.name} is damaged") as raised:
        await get(blob)
    # Not an error of the node, so that the core looks at its own file.
    assert not isinstance(raised.value, NodeError)
    assert (kept(cache), arrived(cache)) == ({}, {})


async def test_a_file_that_shrinks_meanwhile_is_an_error(start, make_blob, cache, gate):
    # More than the connections hold, so that a part of it is not read yet.
    get, blob = await start(), make_blob(os.urandom(4 * LARGE))
    getting = asyncio.create_task(get(blob))
    await until(lambda: arrived(cache).get(blob.name))
    os.truncate(blob, 1)
    gate.set()
    with pytest.raises(LoadFailedError, match="has shrunk while it was read"):
        await getting


async def test_a_file_that_cannot_be_read_is_named(start, make_blob):
    get, blob = await start(), make_blob(b"")
    folder = blob.parent / f"sha256-{'0' * 64}"
    folder.mkdir()
    with pytest.raises(LoadFailedError, match="cannot be read: Is a directory"):
        await get(folder)


async def test_two_loads_at_once_share_a_transfer(start, make_blob, cache, sent, gate):
    # The second node is another process to the first, as far as the folder is concerned.
    caches, blob = [cache, FileCache(cache.folder, 1 << 30)], make_blob(os.urandom(LARGE))
    nodes = [await start(each) for each in caches]
    getting = [asyncio.create_task(get(blob)) for get in (*nodes, *nodes)]
    await until(lambda: arrived(cache).get(blob.name))
    gate.set()
    await asyncio.gather(*getting)
    assert sent == [0]
    assert kept(cache) == {blob.name: blob.read_bytes()}


async def test_another_load_takes_over_from_one_that_is_given_up(start, make_blob, cache, sent, gate):
    get, blob, told = await start(), make_blob(os.urandom(LARGE)), []
    first = asyncio.create_task(get(blob))
    await until(lambda: arrived(cache).get(blob.name))
    second = asyncio.create_task(get(blob, on_transfer=lambda *progress: told.append(progress)))
    await until(lambda: told and told[-1][0])
    first.cancel()
    await given_up(get)
    gate.set()
    await second
    assert sent[0] == 0 < sent[1]
    assert len(sent) == 2
    await asyncio.wait({first})


async def test_files_in_use_are_kept_and_others_make_room(start, make_blob, cache):
    cache = FileCache(cache.folder, 100)
    get = await start(cache)
    old, older, used, new = (make_blob(bytes([n]) * 30) for n in range(4))
    for each in (older, old):
        host, _ = await get(each)
        await host.end()
    os.utime(cache.folder / "verified" / older.name, (1, 1))
    os.utime(cache.folder / "files" / older.name, (1, 1))
    await get(used)
    await get(new)
    assert kept(cache).keys() == {old.name, used.name, new.name}
    with pytest.raises(NodeError, match=r"no room for a file of 80 bytes: of the 100 bytes .* in use take 60;"):
        await get(make_blob(b"x" * 80))
    assert kept(cache).keys() == {used.name, new.name}
    assert arrived(cache) == {}
    with pytest.raises(NodeError, match=r"no room for a file of 101 bytes"):
        await get(make_blob(b"x" * 101))


async def test_a_full_disk_is_a_clear_error(start, make_blob, cache, monkeypatch):
    get, blob = await start(), make_blob(b"x" * 100)

    def full(self, chunks):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as planted:
        planted.setattr(PartialFile, "write", full)
        with pytest.raises(NodeError, match=r"cannot be kept: .*No space left on device"):
            await get(blob)
    assert arrived(cache) == {}
    await get(blob)
    assert kept(cache) == {blob.name: b"x" * 100}


async def test_a_transfer_without_a_byte_for_long_ends_the_load(
    run_node, make_node, load_on, want, make_blob, cache, gate
):
    spec = replace(want().spec, path=str(make_blob(os.urandom(LARGE))))
    node = make_node((await run_node(cache=cache)).address)
    loading = asyncio.create_task(load_on(node, spec=spec, stall_seconds=1.0))
    with pytest.raises(NodeError, match="no byte of its files has reached the node for 1 s"):
        await asyncio.wait_for(loading, 60)
    gate.set()


async def test_a_node_that_is_lost_during_a_transfer_is_a_clear_error(
    run_node, make_node, bring, make_blob, cache, network, gate
):
    running = await run_node(cache=cache)
    between, blob = await network(running.address), make_blob(os.urandom(LARGE))
    node = make_node(between.address, silence=1.0)
    getting = asyncio.create_task(bring(running, node, blob))
    await until(lambda: arrived(cache).get(blob.name))
    between.drop()
    with pytest.raises(NodeError, match="has not answered for 1 s"):
        await asyncio.wait_for(getting, 30)
    gate.set()
    between.heal()
    await bring(running, node, blob)
    assert kept(cache) == {blob.name: blob.read_bytes()}
