"""That the soak of KV caches finds nothing in a short run, and would notice what it is there to notice."""

import argparse
import random

import pytest
from tools.soak.caches.__main__ import MODEL, Soak
from tools.soak.caches.damage import KINDS


@pytest.fixture
def soak(tmp_path):
    told = argparse.Namespace(model=MODEL, processes=2, seconds=0.1, megabytes=2.0, secret=False, seed=1)
    return Soak(told, tmp_path, tmp_path)


@pytest.fixture
def faults(soak):
    return soak.verdict.faults


def test_rounds_without_a_fault(soak, faults):
    for number in range(2):
        soak.round(number)
    assert faults == []
    assert soak.verdict.restored > 0
    assert soak.verdict.damaged.total() > 0


def test_faults_are_noticed(soak, faults, tmp_path):
    soak._judge({3: soak._right[3] + "."})
    folder = tmp_path / "kv" / "partition"
    folder.mkdir(parents=True)
    for name in ("damaged.kv", "left.new"):
        (folder / name).write_bytes(b"data")
    (folder / "large.kv").write_bytes(bytes(2_000_000))
    (tmp_path / "log").write_text("partition/good is removed: why\nTraceback")
    soak._look({folder / "damaged.kv": ("cut", b"data")})
    expected = ("has the answer", "still there", "an undamaged file", "left unfinished", "2000004 bytes", "a traceback")
    assert [part in fault for part, fault in zip(expected, faults, strict=True)] == [True] * len(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_changes_a_file(kind, tmp_path):
    folder = tmp_path / "partition"
    folder.mkdir()
    for name in ("one.kv", "two.kv"):
        (folder / name).write_bytes(name.encode() * 1000 + bytes(5000))
    before = (folder / "one.kv").read_bytes()
    for seed in range(20):
        KINDS[kind](folder / "one.kv", random.Random(seed))
        assert (folder / "one.kv").read_bytes() != before
        (folder / "one.kv").write_bytes(before)
