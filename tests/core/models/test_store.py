import json
import os
import threading

import pytest
from tests.core import planted

from puna.demo.install import install
from puna.formats import NewerFormatError
from puna.model_name import ModelName
from puna.models.storage.blobs import SharedLocks
from puna.models.store import ModelStore
from puna.models.stored import UnreadableModelError
from puna.models.upkeep import doctor


def name(text):
    return ModelName.parse(text)


def names(store):
    return sorted(each.name.shortest for each in store.list())


def blobs(store):
    return {path.name for path in store.blobs.folder.iterdir()}


def test_a_store_that_does_not_exist_is_empty(store):
    assert store.list() == []
    with pytest.raises(LookupError):
        store.get(name("m"))
    store.prune()
    assert not store.root.exists()


def test_a_model_is_found_whatever_the_case(workshop):
    workshop.create_plain("Foo")
    assert workshop.store.resolve(name("FOO:LATEST")).shortest == "Foo:latest"
    assert workshop.store.get(name("fOO")).name.shortest == "Foo:latest"
    workshop.create_plain("FOO")
    assert names(workshop.store) == ["Foo:latest"]


def test_each_part_takes_the_spelling_that_is_there(workshop):
    workshop.create_plain("Me/one:V1")
    assert workshop.store.resolve(name("ME/Two:v1")).shortest == "Me/Two:V1"


def test_newest_models_come_first_counted_in_seconds(workshop):
    for each, moment in (("old", 1_000_000_000), ("b", 2_000_000_000.75), ("a", 2_000_000_000.25)):
        workshop.create_plain(each)
        path = workshop.store.root / "manifests/registry.ollama.ai/library" / each / "latest"
        os.utime(path, (moment, moment))
    assert [each.name.model for each in workshop.store.list()] == ["a", "b", "old"]
    assert workshop.store.list()[0].modified_ns == 2_000_000_000_250_000_000


def test_a_summary_tells_what_the_reference_lists(workshop, sha256):
    workshop.create_plain("m", ("general.file_type", "u32", 7), ("zed.context_length", "u32", 64))
    workshop.create("child", base="m", system="hi")
    child = next(each for each in workshop.store.list() if each.name.model == "child")
    assert child.digest == sha256(workshop.manifest("child"))
    manifest = json.loads(workshop.manifest("child"))
    assert child.size == manifest["config"]["size"] + sum(layer["size"] for layer in manifest["layers"])
    assert child.modified.utcoffset() is not None
    details = child.details
    assert (details.parent_model, details.format, details.family) == ("m:latest", "gguf", "zed")
    assert (details.families, details.parameter_size, details.quantization_level) == (("zed",), "4", "Q8_0")
    assert (details.context_length, details.embedding_length, child.capabilities) == (64, 0, ("completion",))


def test_files_that_are_no_manifests_are_passed_over(workshop):
    workshop.create_plain()
    library = workshop.store.root / "manifests/registry.ollama.ai/library"
    (library / "m" / ".DS_Store").write_text("x")
    (library / "stray").write_text("x")
    (library / "broken").mkdir()
    (library / "broken" / "latest").write_text("{")
    (library / "deep" / "er" / "still").mkdir(parents=True)
    (library / "deep" / "er" / "still" / "x").write_text("{}")
    assert names(workshop.store) == ["m:latest"]
    with pytest.raises(UnreadableModelError):
        workshop.store.get(name("broken"))


def test_a_model_without_its_configuration_is_not_there(workshop):
    workshop.create_plain()
    digest = json.loads(workshop.manifest())["config"]["digest"]
    workshop.store.blobs.path(digest).unlink()
    fresh = ModelStore(workshop.store.root)
    assert fresh.list() == []
    with pytest.raises(LookupError):
        fresh.get(name("m"))


def test_a_copy_has_the_same_bytes_and_outlives_the_original(workshop):
    workshop.create_plain()
    workshop.store.copy(name("m"), name("you/copy:v2"))
    assert names(workshop.store) == ["m:latest", "you/copy:v2"]
    assert len({each.digest for each in workshop.store.list()}) == 1
    workshop.store.copy(name("m"), name("M"))
    workshop.store.delete(name("M"))
    assert names(workshop.store) == ["you/copy:v2"]
    assert workshop.store.get(name("you/copy:v2")).gguf.architecture == "zed"


def test_a_copy_is_of_what_its_source_is_once_its_blobs_are_held(workshop, monkeypatch):
    workshop.create_plain("m", system="Old.")
    add = SharedLocks.add

    def late(shared_locks, digest):
        monkeypatch.setattr(SharedLocks, "add", add)
        workshop.create("m", base="m", system="New.")  # which removes what the copy has read of
        add(shared_locks, digest)

    monkeypatch.setattr(SharedLocks, "add", late)
    workshop.store.copy(name("m"), name("n"))
    assert workshop.text("n", "system") == "New."


def test_copying_what_is_not_there_fails(store):
    with pytest.raises(LookupError):
        store.copy(name("m"), name("n"))
    store.copy(name("m"), name("m:latest"))  # onto itself it is nothing to do, though


def test_deleting_removes_blobs_that_nobody_else_uses(workshop):
    workshop.create_plain()
    shared = blobs(workshop.store)
    workshop.create("child", base="m", system="only the child's")
    workshop.store.delete(name("child"))
    assert blobs(workshop.store) == shared
    workshop.store.delete(name("m"))
    assert blobs(workshop.store) == set()
    assert not (workshop.store.root / "manifests").exists()
    with pytest.raises(LookupError):
        workshop.store.delete(name("m"))


def test_a_replaced_models_blobs_go_unless_nothing_may_be_pruned(workshop):
    workshop.create_plain()
    workshop.create("child", base="m", system="first")
    workshop.create("child", base="m", system="second")
    first = "sha256-a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"
    assert first not in blobs(workshop.store)
    workshop.store.no_prune = True
    workshop.create("child", base="m", system="first")
    workshop.create("child", base="m", system="second")
    assert first in blobs(workshop.store)


def test_another_process_changes_are_seen_at_once(workshop):
    workshop.create_plain()
    other = ModelStore(workshop.store.root)
    assert names(other) == ["m:latest"]
    workshop.create("m", base="m", system="new")
    assert other.get(name("m")).system == "new"
    workshop.store.delete(name("m"))
    assert names(other) == []


def test_what_crashed_writers_left_is_pruned_after_an_hour(workshop):
    workshop.create_plain()
    store = workshop.store
    kept = blobs(store)
    for file in ("sha256-unfinished", "sha256-" + "1" * 64, "sha256-" + "2" * 64 + "-partial", ".DS_Store"):
        path = store.blobs.folder / file
        path.write_text("x")
        os.utime(path, (0, 0))
    young = store.blobs.folder / ("sha256-" + "3" * 64)
    young.write_text("x")
    for digest in kept:
        os.utime(store.blobs.folder / digest, (0, 0))
    (store.root / "manifests" / ".puna-left").write_text("x")
    os.utime(store.root / "manifests" / ".puna-left", (0, 0))
    (store.root / "manifests" / "host" / "empty").mkdir(parents=True)
    store.prune()
    assert blobs(store) == kept | {young.name}
    assert [path.name for path in (store.root / "manifests").iterdir()] == ["registry.ollama.ai"]


@pytest.mark.parametrize(("file", "text"), [("broken", "{"), (".DS_Store", "{}")])
def test_one_file_that_is_no_manifest_stops_the_pruning(workshop, file, text):
    workshop.create_plain()
    (workshop.store.root / "manifests/registry.ollama.ai/library/m" / file).write_text(text)
    orphan = workshop.store.blobs.folder / ("sha256-" + "1" * 64)
    orphan.write_text("x")
    os.utime(orphan, (0, 0))
    workshop.store.prune()
    assert orphan.exists()


def test_pruning_can_be_forbidden(workshop):
    workshop.create_plain()
    orphan = workshop.store.blobs.folder / ("sha256-" + "1" * 64)
    orphan.write_text("x")
    os.utime(orphan, (0, 0))
    ModelStore(workshop.store.root, no_prune=True).prune()
    assert orphan.exists()


def test_blobs_of_very_old_servers_are_renamed(workshop):
    workshop.store.blobs.folder.mkdir(parents=True)
    (workshop.store.blobs.folder / ("sha256:" + "1" * 64)).write_text("x")
    workshop.store.prune()
    assert blobs(workshop.store) == {"sha256-" + "1" * 64}


def test_many_threads_may_create_copy_list_and_delete(workshop):
    workshop.create_plain("base")
    wrong = []

    def work(number):
        for turn in range(5):
            mine = f"m{number}"
            workshop.create(mine, base="base", system=f"{turn % 2}")  # the blobs are shared between threads
            workshop.store.copy(name(mine), name(f"{mine}:copy"))
            if workshop.store.get(name(mine)).system != f"{turn % 2}":
                wrong.append(mine)
            if "base:latest" not in names(workshop.store):
                wrong.append("base")
            workshop.store.delete(name(mine))
            if workshop.store.get(name(f"{mine}:copy")).system != f"{turn % 2}":
                wrong.append(f"{mine}:copy")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert names(workshop.store) == ["base:latest", *(f"m{number}:copy" for number in range(4))]


def changes(store):
    """Return every kind of change of a store, as functions."""

    def lock():
        with store.blobs.hold_shared_locks():
            pass

    return {
        "copy": lambda: store.copy(name("m"), name("other")),
        "delete": lambda: store.delete(name("m")),
        "add": lambda: store.blobs.add(b"new"),
        "lock": lock,
        "replace": lambda: store.manifests.replace(name("m"), b"{}"),
        "remove": lambda: store.blobs.remove([path.name for path in store.blobs.files()], frozenset),
        "check": store.check,
        "repair": lambda: list(doctor.examine(store, repair=True)),
        "demo": lambda: install(store),
    }


def age(store):
    """Make everything so old that pruning would remove it."""
    for path in [store.root, *store.root.rglob("*")]:
        os.utime(path, (0, 0), follow_symlinks=False)


@pytest.mark.parametrize("change", ["copy", "delete", "add", "lock", "replace", "remove", "check", "repair", "demo"])
def test_a_store_of_a_newer_version_is_refused_and_stays_as_it_is(workshop, change):
    workshop.create_plain("m")
    store = workshop.store
    store.blobs.add(b"an orphan, for this version")
    planted.mark(store.root / ".puna/format.json")
    # What this version would rename and remove at its start.
    (store.blobs.folder / f"sha256:{'0' * 64}").touch()
    (store.root / "manifests" / ".puna-unfinished").touch()
    age(store)
    before = planted.contents(store.root)
    with pytest.raises(NewerFormatError, match=r"format.json has format version 2"):
        changes(store)[change]()
    store.prune()
    assert planted.contents(store.root) == before
    # What reads alone still works: a server that runs goes on.
    assert names(store) == ["m:latest"]


def test_a_store_that_becomes_newer_during_a_change_is_changed_no_more(workshop):
    workshop.create_plain("m")
    store = workshop.store
    (blob, *_) = store.blobs.files()
    store.blobs.stat_fingerprints.write(blob)
    with store.blobs.hold_shared_locks(), store.blobs.writer() as writer:
        planted.mark(store.root / ".puna/format.json")
        before = planted.contents(store.root / ".puna")
        with pytest.raises(NewerFormatError):
            writer.commit()
        os.utime(blob)
        store.blobs.stat_fingerprints.renew(blob)
        store.blobs.stat_fingerprints.remove(blob)
    assert planted.contents(store.root / ".puna") == before


def test_the_first_change_marks_a_store_and_reading_does_not(workshop):
    workshop.create_plain("m")
    marker = workshop.store.root / ".puna/format.json"
    assert json.loads(marker.read_text()) == {"version": 1}
    marker.unlink()
    store = ModelStore(workshop.store.root)
    store.check()
    assert names(store) == ["m:latest"]
    assert not marker.exists()
    store.copy(name("m"), name("other"))
    assert marker.stat().st_mode & 0o777 == 0o644
