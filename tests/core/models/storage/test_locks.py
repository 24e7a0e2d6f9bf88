"""What one process holds, another keeps its hands off."""

import fcntl
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from puna.models.store import ModelStore

HOLD = """
import sys
from pathlib import Path
from puna.models.store import ModelStore
store = ModelStore(Path(sys.argv[1]))
with store.blobs.hold_shared_locks() as held, store.blobs.temporary() as path:
    held.add(sys.argv[2])
    print(path, flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(store, digest):
    """Another process that claims a blob and writes a temporary file, whose path this gives."""
    command = [sys.executable, "-c", HOLD, str(store.root), digest]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield process, process.stdout.readline().strip()
        process.kill()


def old(path):
    os.utime(path, (0, 0))
    return path


@pytest.mark.parametrize("how", ["prune", "remove"])
def test_nobody_removes_what_another_process_claims(store, how):
    digest = store.blobs.add(b"hello").digest
    with holding(store, digest) as (process, temporary):
        old(store.blobs.path(digest))
        old(temporary)
        remove = store.prune if how == "prune" else lambda: store.blobs.remove([digest], frozenset)
        remove()
        assert store.blobs.has(digest)
        assert Path(temporary).exists()
        process.kill()
        process.wait()
        remove()
        assert not store.blobs.has(digest)
        assert Path(temporary).exists() is (how == "remove")


def test_two_stores_of_one_process_respect_each_other(store):
    digest = store.blobs.add(b"hello").digest
    with ModelStore(store.root).blobs.hold_shared_locks() as shared_locks:
        shared_locks.add(digest)
        store.blobs.remove([digest], frozenset)
        assert store.blobs.has(digest)
    store.blobs.remove([digest], frozenset)
    assert not store.blobs.has(digest)


def test_a_download_keeps_its_notes(store):
    store.blobs.folder.mkdir(parents=True)
    partial = store.blobs.folder / ("sha256-" + "1" * 64 + "-partial")
    note = partial.with_name(partial.name + "-0")
    with partial.open("wb") as file:
        note.write_text("{}")
        fcntl.flock(file, fcntl.LOCK_EX)
        old(partial)
        old(note)
        store.prune()
        assert partial.exists()
        assert note.exists()
    store.prune()
    assert not partial.exists()
    assert not note.exists()


def test_a_blob_that_was_just_used_is_not_removed_by_who_thought_it_old(store):
    digest = store.blobs.add(b"hello").digest
    old(store.blobs.path(digest))

    def used(**how):
        store.blobs.touch(digest)  # somebody uploads it again, between the look and the removal
        return frozenset()

    store.manifests.used_digests = used
    store.remove_orphans()
    assert store.blobs.has(digest)
    assert time.time() - store.blobs.path(digest).stat().st_mtime < 60
