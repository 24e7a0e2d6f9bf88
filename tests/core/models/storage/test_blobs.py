import os
import threading
import time

import pytest

from puna.errors import BlobNotFoundError, DigestMismatchError, InvalidDigestError

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
ONES = "sha256:" + "1" * 64


def listing(store):
    return sorted(path.name for path in store.blobs.folder.iterdir())


def test_a_blob_is_stored_under_its_digest_and_only_once(store):
    with store.blobs.writer() as writer:
        writer.write(b"hel")
        writer.write(b"lo")
        blob = writer.commit(HELLO)
    assert (blob.digest, blob.size, blob.created) == (HELLO, 5, True)
    assert not store.blobs.add(b"hello").created
    assert store.blobs.has(HELLO)
    assert store.blobs.size(HELLO.replace(":", "-")) == 5
    assert listing(store) == [HELLO.replace(":", "-")]
    assert oct(store.blobs.path(HELLO).stat().st_mode & 0o777) == "0o644"


@pytest.mark.parametrize(("keep", "left"), [(False, []), (True, [HELLO.replace(":", "-")])])
def test_bytes_of_another_digest_are_refused(store, keep, left):
    with pytest.raises(DigestMismatchError) as caught, store.blobs.writer() as writer:
        writer.write(b"hello")
        writer.commit(ONES, keep=keep)
    assert str(caught.value) == f'digest mismatch, expected "{ONES}", got "{HELLO}"'
    assert listing(store) == left


def test_an_upload_that_ends_early_leaves_nothing_behind(store):
    def upload():
        with store.blobs.writer() as writer:
            writer.write(b"hel")
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        upload()
    assert listing(store) == []


@pytest.mark.parametrize("digest", ["", "nonsense", "sha256:123", "sha256:" + "g" * 64, "md5:" + "1" * 64, ONES + "1"])
def test_digests_are_checked(store, digest):
    with pytest.raises(InvalidDigestError, match=r"^invalid digest format$"):
        store.blobs.has(digest)


def test_a_missing_blob_is_named(store):
    assert not store.blobs.has(ONES)
    with pytest.raises(BlobNotFoundError) as caught:
        store.blobs.size(ONES)
    assert str(caught.value) == f'blob "{ONES}" not found'


def test_storing_again_makes_a_blob_young(store):
    path = store.blobs.path(store.blobs.add(b"hello").digest)
    os.utime(path, (0, 0))
    store.blobs.add(b"hello")
    assert time.time() - path.stat().st_mtime < 60


def test_a_file_is_adopted_or_dropped(store):
    for created in (True, False):
        with store.blobs.temporary() as path:
            path.write_bytes(b"hello")
            assert store.blobs.adopt(path).created is created
    assert listing(store) == [HELLO.replace(":", "-")]


def test_claimed_and_used_blobs_are_not_removed(store):
    digests = [store.blobs.add(text).digest for text in (b"used", b"claimed", b"idle")]
    with store.blobs.hold_shared_locks() as shared_locks:
        shared_locks.add(digests[1])
        store.blobs.remove(digests, lambda: frozenset(digests[:1]))
        assert [store.blobs.has(digest) for digest in digests] == [True, True, False]
    store.blobs.remove(digests, lambda: frozenset(digests[:1]))
    assert [store.blobs.has(digest) for digest in digests] == [True, False, False]


def test_many_threads_may_store_the_same_bytes(store):
    made = []
    threads = [threading.Thread(target=lambda: made.append(store.blobs.add(b"x" * 100_000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({blob.digest for blob in made}) == 1
    assert len(listing(store)) == 1
