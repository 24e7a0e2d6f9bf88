import json
import os
import shutil

import pytest
from tests.core import planted
from tests.core.batch.conftest import make, results

from puna.batch import batch as states
from puna.batch import records
from puna.errors import InvalidRequestError, NotFoundError, TooLargeError


def test_a_batch_survives_a_restart(open_batches):
    new = make(open_batches(), "a", "b", owner="key")
    found = open_batches().store.get("key", new.id)
    assert found.config == new.config
    assert found.config.total == 2
    assert found.progress.state == states.QUEUED
    assert not found.ended


def test_results_survive_a_restart(open_batches):
    first = open_batches()
    new = make(first, "a", "b", "c")
    first.store.start(new)
    first.store.add_result(new, 2, b"two", failed=False)
    first.store.add_result(new, 1, b"one", failed=True)
    again = open_batches()
    found = again.store.get("", new.id)
    assert (found.progress.completed, found.progress.failed, found.progress.state) == (1, 1, states.RUNNING)
    assert results(again, found) == [(1, 2, b"two"), (2, 1, b"one")]
    again.store.add_result(found, 3, b"three", failed=False)
    assert found.progress.state == states.DONE
    assert results(again, found)[2] == (3, 3, b"three")


def test_a_request_has_one_result(open_batches):
    found = open_batches()
    new = make(found, "a", "b")
    assert found.store.add_result(new, 1, b"first", failed=False)
    assert not found.store.add_result(new, 1, b"second", failed=False)
    assert results(found, new) == [(1, 1, b"first")]


def test_a_batch_that_has_ended_takes_no_result(open_batches):
    found = open_batches()
    new = make(found, "a", "b")
    found.store.end(new, states.CANCELLED)
    assert not found.store.add_result(new, 1, b"late", failed=False)
    assert open_batches().store.get("", new.id).progress.state == states.CANCELLED


class Dead(BaseException):
    """The process dies here."""


STEPS = ("fsync", "fdatasync", "mkdir", "rename", "replace", "open", "write")


def dying(monkeypatch, allowed):
    """Have the process die at a step that changes the disk, after some that succeed. Return the list of steps taken."""
    taken = []

    def through(name, real):
        def step(*args, **more):
            if len(taken) == allowed:
                raise Dead
            taken.append(name)
            return real(*args, **more)

        return step

    for name in STEPS:
        monkeypatch.setattr(os, name, through(name, getattr(os, name)))
    # A process that is killed cleans nothing up.
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
    return taken


def until_it_survives(monkeypatch, prepare, action, check):
    """Run an action on what `prepare` returns again and again, dying one step later each time, until it survives.

    `check` looks at what is left each time; its argument is whether the process died.
    """
    for allowed in range(200):
        prepared = prepare()
        with monkeypatch.context() as patched:
            taken = dying(patched, allowed)
            try:
                action(prepared)
                died = False
            except Dead:
                died = True
        check(prepared, died)
        if not died:
            assert len(taken) == allowed > 1
            return
    pytest.fail("the action never ends")


# A process that dies closes its files without Python.
dies = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@dies
def test_a_creation_that_dies_leaves_a_whole_batch_or_none(open_batches, monkeypatch, tmp_path):
    def check(_, died):
        store = open_batches().store
        found = store.listed("")
        assert len(found) <= 1
        assert found or died
        for each in found:
            assert each.config.total == 2
            store.delete(each)
        assert list((tmp_path / "batches").glob("batches/*")) == []

    until_it_survives(monkeypatch, open_batches, lambda found: make(found, "a", "b"), check)


@dies
def test_a_result_whose_storing_dies_is_there_or_not(open_batches, monkeypatch):
    def prepare():
        found = open_batches()
        return found.store, make(found, "a", "b")

    def action(prepared):
        store, new = prepared
        store.start(new)
        store.add_result(new, 2, b"two", failed=False)
        store.add_result(new, 1, b"one", failed=True)

    def check(prepared, died):
        again = open_batches()
        found = again.store.get("", prepared[1].id)
        seen = results(again, found)
        # What the process that died had counted is there.
        assert prepared[1].results <= len(seen)
        assert seen == [(1, 2, b"two"), (2, 1, b"one")][: len(seen)]
        assert found.progress.completed + found.progress.failed == len(seen)
        assert found.ended == (len(seen) == 2)
        assert died or found.ended

    until_it_survives(monkeypatch, prepare, action, check)


@dies
def test_a_removal_that_dies_leaves_a_whole_batch_or_none(open_batches, monkeypatch):
    def prepare():
        found = open_batches()
        return found.store, make(found, "a")

    def check(prepared, died):
        left = [each.id for each in open_batches().store.listed("")]
        assert prepared[1].id not in left or died

    until_it_survives(monkeypatch, prepare, lambda prepared: prepared[0].delete(prepared[1]), check)


def test_all_files_belong_to_their_owner_alone(open_batches, tmp_path):
    found = open_batches()
    new = make(found, "a", "b")
    found.store.start(new)
    found.store.add_result(new, 1, b"one", failed=False)
    found.store.end(new, states.CANCELLED)
    for each in (tmp_path / "batches").rglob("*"):
        assert each.stat().st_mode & 0o777 == (0o700 if each.is_dir() else 0o600), each
    assert (tmp_path / "batches").stat().st_mode & 0o777 == 0o700


def test_batches_of_others_are_not_found(open_batches):
    found = open_batches()
    new = make(found, "a", owner="one")
    with pytest.raises(NotFoundError):
        found.store.get("other", new.id)
    assert found.store.listed("other") == []


@pytest.mark.parametrize("id_", ["", "..", "../lock", "/etc/passwd", "batch_", "\0", "x" * 100_000])
def test_an_id_is_no_path(open_batches, id_):
    with pytest.raises(NotFoundError) as raised:
        open_batches().store.get("", id_)
    assert len(str(raised.value)) < 400


def test_the_newest_batch_is_the_first_of_the_list(open_batches, clock):
    found = open_batches()
    ids = []
    for name in "abc":
        ids.insert(0, make(found, name).id)
        clock.pass_(1)
    assert [each.id for each in open_batches().store.listed("")] == ids


def test_an_answer_beyond_the_limit_is_refused_and_its_error_is_stored(open_batches):
    found = open_batches(max_stored_bytes=100)
    new = make(found, "a")
    with pytest.raises(TooLargeError):
        found.store.add_result(new, 1, bytes(100), failed=False)
    assert found.store.add_result(new, 1, bytes(100), failed=True)


@pytest.mark.parametrize("window", [0, -1, 604_801, float("inf"), float("nan")])
def test_a_completion_window_has_bounds(open_batches, window):
    with pytest.raises(InvalidRequestError, match="completion_window"):
        make(open_batches(), "a", window=window)


def test_results_are_filtered_and_resumed(open_batches):
    found = open_batches()
    new = make(found, "a", "b", "c")
    for number, failed in ((1, False), (2, True), (3, False)):
        found.store.add_result(new, number, b"x", failed=failed)
    assert [each[1] for each in results(found, new, failed=False)] == [1, 3]
    assert [each[1] for each in results(found, new, failed=True)] == [2]
    assert [each[1] for each in results(found, new, after=2)] == [3]


@pytest.mark.parametrize(("failed", "left"), [(False, [2]), (True, [1]), (None, [])])
def test_results_can_be_deleted(open_batches, failed, left):
    found = open_batches()
    new = make(found, "a", "b", "c")
    found.store.add_result(new, 1, b"answer", failed=False)
    found.store.add_result(new, 2, b"error", failed=True)
    with pytest.raises(InvalidRequestError, match="not ended"):
        found.store.delete_results(new, failed=failed)
    found.store.end(new, states.CANCELLED)
    before = new.size
    found.store.delete_results(new, failed=failed)
    assert [each[1] for each in results(found, new)] == left
    assert new.size < before
    again = open_batches().store.get("", new.id)
    assert (again.size, again.progress) == (new.size, new.progress)
    assert (again.progress.completed, again.progress.failed) == (1, 1)


def test_what_ended_long_ago_is_removed(open_batches, clock):
    found = open_batches(max_kept_seconds=100)
    old, running = make(found, "a"), make(found, "b")
    found.store.add_result(old, 1, b"x", failed=False)
    clock.pass_(99)
    found.store.expire()
    assert len(found.store.listed("")) == 2
    clock.pass_(2)
    found.store.expire()
    assert found.store.listed("") == [running]
    assert not old.folder.exists()


def test_a_batch_that_cannot_be_read_hides_no_other(open_batches, caplog):
    found = open_batches()
    bad, good = make(found, "a"), make(found, "secret prompt")
    worse = make(found, "b")
    # A result of a request that the batch does not have.
    records.append(worse.folder / states.RESULTS, records.Record(1, 9, False, b"x").encode())
    (bad.folder / states.DESCRIPTION).write_bytes(b"{")
    assert [each.id for each in open_batches().store.listed("")] == [good.id]
    assert "cannot be read" in caplog.text
    assert "secret" not in caplog.text


def test_what_only_a_newer_version_knows_stays_in_the_folder(open_batches, tmp_path):
    found = open_batches()
    new = make(found, "a", "b")
    found.store.start(new)
    for name in ("batch.json", "state.json"):
        planted.change(new.folder / name, shard=7)
    description = (new.folder / "batch.json").read_bytes()
    again = open_batches()
    read = again.store.get("", new.id)
    again.store.add_result(read, 1, b"one", failed=False)
    again.store.end(read, states.CANCELLED)
    again.store.delete_results(read, failed=None)
    assert (new.folder / "batch.json").read_bytes() == description
    state = json.loads((new.folder / "state.json").read_text())
    assert (state["shard"], state["state"]) == (7, states.CANCELLED)
    assert open_batches().store.get("", new.id).progress == read.progress
