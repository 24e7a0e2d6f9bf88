import json
import os
import shutil

import pytest

from puna.model_name import ModelName
from puna.models.storage import integrity, stat_fingerprints
from puna.models.storage.integrity import StoppedError
from puna.models.store import ModelStore
from puna.models.upkeep import doctor
from puna.models.upkeep.report import Finding, Kind, Report


@pytest.fixture
def stocked(workshop):
    """A store of two models that share a blob, with everything in order."""
    workshop.create_plain("one", system="Be brief.")
    workshop.create("two", base="one", system="Be long.")
    return workshop.store


def look(store, **how):
    seen = list(doctor.examine(ModelStore(store.root), **how))
    assert isinstance(seen[-1], Report)
    return [each for each in seen if isinstance(each, Finding)], seen[-1]


def kinds(store, **how):
    return [(each.kind, each.repaired) for each in look(store, **how)[0]]


def model_blob(store, name="one"):
    return store.get(ModelName.parse(name)).model_path


def find_damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_all_is_well(stocked):
    findings, report = look(stocked)
    assert findings == []
    size = sum(path.stat().st_size for path in stocked.blobs.files())
    assert report == Report(models=2, blobs=len(stocked.blobs.files()), bytes_read=size, faults=0, repaired=0)


def test_a_store_that_does_not_exist_is_well(store):
    assert look(store) == ([], Report(models=0, blobs=0, bytes_read=0, faults=0, repaired=0))
    assert not store.root.exists()


def test_a_damaged_blob_is_named_with_all_models_that_use_it(stocked):
    path = model_blob(stocked)
    find_damage(path)
    (finding,), report = look(stocked)
    assert (finding.kind, finding.models, report.faults) == (Kind.DAMAGED_BLOB, ("one:latest", "two:latest"), 1)
    assert finding.digest == path.name.replace("-", ":")
    assert path.exists()
    (finding,), report = look(stocked, repair=True)
    assert (finding.repaired, path.exists(), report.faults, report.repaired) == (True, False, 0, 1)
    assert kinds(stocked) == [(Kind.MISSING_BLOB, False)]


def test_a_quick_look_trusts_seals_and_sees_what_was_written_to(stocked, monkeypatch):
    for module in (integrity, stat_fingerprints):
        monkeypatch.setattr(module, "SMALL", 1)
    look(stocked)  # seals what it reads
    path = model_blob(stocked)
    assert look(stocked, quick=True)[1].bytes_read == 0
    find_damage(path)
    assert kinds(stocked, quick=True) == [(Kind.DAMAGED_BLOB, False)]
    stocked.blobs.stat_fingerprints.renew(path)  # as a disk does that forgets
    assert kinds(stocked, quick=True) == []
    assert kinds(stocked) == [(Kind.DAMAGED_BLOB, False)]


def test_a_blob_of_another_size_than_its_manifest_says(stocked):
    os.truncate(model_blob(stocked), 50)
    (finding,), _ = look(stocked)
    assert "has 50 bytes instead of" in finding.text


def test_a_missing_blob(stocked):
    model_blob(stocked).unlink()
    (finding,), report = look(stocked, repair=True)
    assert (finding.kind, finding.models, report.faults) == (Kind.MISSING_BLOB, ("one:latest", "two:latest"), 1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config":{"digest":"sha256:../../etc/passwd"}}', '{"layers":[1]}'])
def test_a_broken_manifest_is_set_aside(stocked, text):
    path = stocked.root / "manifests/registry.ollama.ai/library/two/latest"
    path.write_text(text)
    assert (Kind.BROKEN_MANIFEST, False) in kinds(stocked)
    assert (Kind.BROKEN_MANIFEST, False) in kinds(stocked, repair=True)  # somebody may be writing it
    os.utime(path, (0, 0))
    for blob in stocked.blobs.files():
        os.utime(blob, (0, 0))
    before = stocked.blobs.files()
    (finding, *_), _ = look(stocked, repair=True)
    assert (finding.kind, finding.models, finding.repaired) == (Kind.BROKEN_MANIFEST, ("two:latest",), True)
    assert [name.shortest for name in stocked.names()] == ["one:latest"]
    (aside,) = (stocked.root / ".puna/broken").iterdir()
    assert aside.read_text() == text
    assert stocked.blobs.files() == before  # the next pull finds what is there


def test_a_configuration_that_makes_no_sense(workshop, stocked):
    digest = workshop.upload(b"[]")
    path = stocked.root / "manifests/registry.ollama.ai/library/two/latest"
    value = json.loads(path.read_text())
    value["config"] |= {"digest": digest, "size": 2}
    path.write_text(json.dumps(value))
    assert (Kind.BROKEN_MODEL, False) in kinds(stocked)


def test_names_that_differ_by_case_alone(stocked):
    library = stocked.root / "manifests/registry.ollama.ai/library"
    shutil.copytree(library / "two", library / "TWO")
    (finding,), _ = look(stocked, repair=True)
    assert (finding.kind, finding.models) == (Kind.CLASHING_NAMES, ("TWO:latest", "two:latest"))


def test_what_is_left_over_costs_nothing_and_goes_when_it_is_old(stocked):
    files = {
        "blobs/sha256-" + "1" * 64: Kind.ORPHAN,
        "blobs/sha256-" + "2" * 64 + "-partial": Kind.PARTIAL,
        "blobs/sha256-unfinished": Kind.UNFINISHED,
        "manifests/.puna-unfinished": Kind.UNFINISHED,
        "blobs/notes.txt": Kind.STRAY,
        "manifests/registry.ollama.ai/.DS_Store": Kind.STRAY,
        "manifests/registry.ollama.ai/library/one/.DS_Store": Kind.STRAY,
    }
    content = b"orphan"
    for name in files:
        (stocked.root / name).write_bytes(content)
    orphan = stocked.blobs.path(stocked.blobs.add(content).digest)
    (stocked.root / next(iter(files))).unlink()
    (stocked.root / ("blobs/sha256-" + "2" * 64 + "-partial-0")).write_text("{}")
    findings, report = look(stocked, repair=True)
    assert sorted(each.kind.value for each in findings) == sorted(kind.value for kind in files.values())
    assert (report.faults, report.repaired) == (0, 0)
    for path in (orphan, *(stocked.root / name for name in files)):
        if path.exists():
            os.utime(path, (0, 0))
    (stocked.root / "manifests/registry.ollama.ai/library/one/.DS_Store").unlink()
    findings, _ = look(stocked, repair=True)
    gone = {each.kind for each in findings if each.repaired}
    assert gone == {Kind.ORPHAN, Kind.UNFINISHED, Kind.STRAY}
    assert not orphan.exists()
    assert (stocked.root / ("blobs/sha256-" + "2" * 64 + "-partial")).exists()


def test_nothing_that_is_claimed_is_removed(stocked):
    orphan = stocked.blobs.path(stocked.blobs.add(b"orphan").digest)
    os.utime(orphan, (0, 0))
    with stocked.blobs.hold_shared_locks() as shared_locks:
        shared_locks.add(orphan.name)
        assert kinds(stocked, repair=True) == [(Kind.ORPHAN, False)]
    assert kinds(stocked, repair=True) == [(Kind.ORPHAN, True)]


def test_a_look_can_be_stopped(stocked):
    with pytest.raises(StoppedError):
        list(doctor.examine(stocked, stopped=lambda: True))


def test_models_that_come_and_go_meanwhile_are_no_faults(workshop, stocked):
    seen = doctor.examine(stocked)
    next(seen)
    first = next(seen)  # the manifests have been read
    stocked.delete(ModelName.parse("two"))
    workshop.create("three", base="one", system="Hello.")
    assert [each for each in (first, *seen) if isinstance(each, Finding)] == []


def test_a_blob_that_is_removed_before_it_is_read_is_no_fault(stocked, monkeypatch):
    def late(blobs, name, *arguments, **how):
        for each in stocked.names():
            stocked.delete(each)
        # As between the look at the file and its opening.
        return str((blobs.folder / name).open("rb").close() or "")

    monkeypatch.setattr(doctor, "_READERS", 1)
    monkeypatch.setattr(doctor, "find_damage", late)
    findings, report = look(stocked)
    assert (findings, report.faults) == ([], 0)


def test_what_cannot_be_repaired_is_told(stocked, monkeypatch):
    find_damage(model_blob(stocked))

    def refuse(self, missing_ok=False):
        raise OSError(30, os.strerror(30), str(self))

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    (finding,), report = look(stocked, repair=True)
    assert finding.advice.startswith("it cannot be repaired: ")
    assert finding.advice.endswith("read-only file system")
    assert report.faults == 1


def test_models_of_other_formats_are_looked_at_without_reading_headers(workshop):
    files = {"config.json": workshop.upload(b"{}"), "a/model.bin": workshop.upload(b"weights")}
    workshop.create("kept", backend="shelf", files=files)
    workshop.create("up", backend="away", upstream="big")

    def seen(**how):
        return list(doctor.examine(workshop.store, **how))

    assert [each for each in seen() if isinstance(each, Finding)] == []
    del workshop.backends.installed["away"]
    (finding,) = [each for each in seen() if isinstance(each, Finding)]
    assert (finding.kind, finding.models, finding.text) == (
        Kind.NO_BACKEND,
        ("up:latest",),
        "backend 'away' is not installed",
    )
    assert seen()[-1].faults == 0
    find_damage(workshop.store.blobs.path(files["a/model.bin"]))
    workshop.backends.installed["away"] = workshop.backends.installed["shelf"]
    (finding,) = [each for each in seen() if isinstance(each, Finding)]
    assert (finding.kind, finding.models) == (Kind.DAMAGED_BLOB, ("kept:latest",))


def test_names_that_a_registry_sent_are_a_fault_of_the_model(workshop):
    workshop.create("kept", backend="shelf", files={"a": workshop.upload(b"x")})
    path = workshop.store.manifests.path(ModelName.parse("kept"))
    path.write_bytes(path.read_bytes().replace(b'"name":"a"', b'"name":"../a"'))
    (finding,), report = look(workshop.store)
    assert (finding.kind, report.faults) == (Kind.BROKEN_MODEL, 1)
    assert "the file name '../a'" in finding.text
