import os
from dataclasses import replace
from pathlib import Path

import pytest

from puna.backend import ModelSpec
from puna.plugins import Plugin
from puna.runtime.back_off import MAX_RECORDS, LoadBackOff, attempt_of
from puna.runtime.errors import HostFailedError
from puna.runtime.requirements import ModelRequirements


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def back_off(clock):
    return LoadBackOff(10.0, clock)


def pause(back_off, clock, attempt="a"):
    """Return how long an attempt is held back, in whole seconds."""
    began = clock.now
    while True:
        try:
            back_off.check(attempt)
        except HostFailedError:
            clock.now += 1.0
        else:
            return clock.now - began


def test_pauses_double_from_the_second_failure_on(back_off, clock):
    pauses = []
    for _ in range(7):
        back_off.failed("a", "it died")
        pauses.append(pause(back_off, clock))
    assert pauses == [0, 1, 2, 4, 8, 10, 10]


def test_the_error_has_the_last_reason(back_off):
    for reason in ("first", "SIGSEGV in native code"):
        back_off.failed("a", reason)
    with pytest.raises(HostFailedError) as error:
        back_off.check("a")
    assert str(error.value) == "SIGSEGV in native code (it failed 2 times in a row and is not tried again for 1 s)"
    back_off.check("b")


def test_a_success_ends_the_record(back_off, clock):
    for _ in range(5):
        back_off.failed("a", "it died")
    back_off.succeeded("a")
    assert not back_off
    back_off.failed("a", "it died")
    assert pause(back_off, clock) == 0


def test_records_are_bounded(back_off):
    for number in range(2 * MAX_RECORDS):
        back_off.failed(number, "it died")
    assert len(back_off._records) == MAX_RECORDS


def test_whatever_could_repair_a_load_makes_it_another_attempt(tmp_path):
    model = tmp_path / "model"
    model.write_bytes(b"weights")
    program = tmp_path / "host"
    program.write_bytes(b"program")
    needed = ModelRequirements(key="k", name="m", spec=ModelSpec(path=str(model)), digest="d")
    plugin = Plugin(name="p", version="1", command=(str(program),))

    def touch(path):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))

    seen = [attempt_of(needed, plugin)]
    assert attempt_of(replace(needed, name="alias"), plugin) == seen[0]
    seen.append(attempt_of(replace(needed, spec=replace(needed.spec, backend_options={"a": 1})), plugin))
    seen.append(attempt_of(replace(needed, digest="e"), plugin))
    seen.append(attempt_of(needed, replace(plugin, version="2")))
    for path in (model, program):
        touch(path)
        seen.append(attempt_of(needed, plugin))
    model.unlink()
    seen.append(attempt_of(needed, plugin))
    assert len(set(seen)) == len(seen)


def test_the_code_of_a_plugin_belongs_to_the_attempt(registry, want, tmp_path, monkeypatch):
    plugin = registry.get("scripted")
    needed = want()
    first = attempt_of(needed, plugin)
    module = next(path for path in Path(plugin.manifest.path).parent.glob("*.py") if path.stem == "puna_scripted")
    state = module.stat()
    os.utime(module, ns=(state.st_atime_ns, state.st_mtime_ns + 1000))
    try:
        assert attempt_of(needed, plugin) != first
    finally:
        os.utime(module, ns=(state.st_atime_ns, state.st_mtime_ns))
