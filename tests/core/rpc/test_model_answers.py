import time

import pytest

from puna.models.facts.details import Details
from puna.models.progress import JobPhase, TransferStep
from puna.models.storage.linked import InPlace
from puna.models.storage.stat_fingerprints import FileState, Place
from puna.rpc import model_answers
from puna_client.v1 import models_pb2


def test_families_that_a_model_lacks_are_told_from_none():
    assert not model_answers.details(Details(families=None)).has_families
    empty = model_answers.details(Details(families=()))
    assert empty.has_families
    assert list(empty.families) == []


def test_texts_of_a_model_file_may_hold_half_a_character():
    message = model_answers.details(Details(parent_model="a\ud800", family="\udfff", families=("\ud800b",)))
    assert (message.parent_model, message.family, list(message.families)) == ("a\ufffd", "\ufffd", ["\ufffdb"])


def test_progress():
    message = model_answers.progress(
        TransferStep(JobPhase.DOWNLOADING, "pulling", digest="sha256:1", total=10, completed=4)
    )
    assert message == models_pb2.JobProgress(
        phase="JOB_PHASE_DOWNLOADING", status="pulling", digest="sha256:1", total_bytes=10, completed_bytes=4
    )


def test_times_keep_their_nanoseconds():
    assert model_answers.timestamp(1_700_000_000_123_456_789).ToNanoseconds() == 1_700_000_000_123_456_789


@pytest.mark.parametrize(
    ("zone", "winter", "summer"),
    [("UTC0", 0, 0), ("CET-1CEST,M3.5.0,M10.5.0/3", 3600, 7200), ("XYZ3:30", -12600, -12600)],
)
def test_the_offset_is_that_of_the_moment(monkeypatch, zone, winter, summer):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert model_answers.offset(1_705_000_000 * 10**9) == winter
        assert model_answers.offset(1_720_000_000 * 10**9) == summer
        assert model_answers.offset(10**30) in (winter, summer)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("place", "state", "shown"),
    [
        (Place.HARD_LINK, FileState.UNCHANGED, (models_pb2.LINK_KIND_HARD, models_pb2.FILE_STATE_UNCHANGED)),
        (Place.SYMBOLIC_LINK, FileState.CHANGED, (models_pb2.LINK_KIND_SYMBOLIC, models_pb2.FILE_STATE_CHANGED)),
        (Place.STORE, FileState.UNKNOWN, (models_pb2.LINK_KIND_UNSPECIFIED, models_pb2.FILE_STATE_UNSPECIFIED)),
        (Place.SYMBOLIC_LINK, None, (models_pb2.LINK_KIND_SYMBOLIC, models_pb2.FILE_STATE_MISSING)),
    ],
)
def test_a_file_outside_of_the_store(place, state, shown):
    message = model_answers.in_place_file(InPlace("sha256:1", "/models/\udcff.gguf", place, state))
    assert (message.link_kind, message.state) == shown
    assert (message.digest, message.path) == ("sha256:1", "/models/\ufffd.gguf")
