import json
import os

import pytest

from puna.models.storage.stat_fingerprints import FileState, Place, StatFingerprints


@pytest.fixture
def blob(tmp_path):
    path = tmp_path / "blobs" / "sha256-1"
    path.parent.mkdir()
    path.write_text("content")
    return path


@pytest.fixture
def fingerprints(tmp_path):
    return StatFingerprints(tmp_path / "seals")


def test_fields_of_a_newer_version_are_kept(fingerprints, blob):
    fingerprints.write(blob, origin="/elsewhere", place=Place.HARD_LINK)
    file = fingerprints.folder / blob.name
    file.write_text(json.dumps(json.loads(file.read_text()) | {"blake3": "x"}))
    assert fingerprints.state(blob) is FileState.UNCHANGED
    os.utime(blob, (1, 1))
    assert fingerprints.state(blob) is FileState.CHANGED
    fingerprints.renew(blob)
    assert fingerprints.state(blob) is FileState.UNCHANGED
    found = json.loads(file.read_text())
    assert (found["blake3"], found["origin"], found["place"]) == ("x", "/elsewhere", Place.HARD_LINK.value)


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_fingerprint_counts_as_none(fingerprints, blob, content):
    fingerprints.write(blob)
    (fingerprints.folder / blob.name).write_text(content)
    assert fingerprints.state(blob) is FileState.UNKNOWN
    fingerprints.write(blob)
    assert fingerprints.state(blob) is FileState.UNCHANGED
