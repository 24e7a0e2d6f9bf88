"""The memory of the machine's GPUs, as the drivers' own means tell it."""

import pytest

from puna.runtime.gpu_memory import smallest_bytes


@pytest.fixture
def nvidia(tmp_path, monkeypatch):
    """Puts a program in place of nvidia-smi, which no machine without a GPU has."""

    def nvidia(script):
        program = tmp_path / "bin/nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return nvidia


def test_the_smallest_of_them_counts(nvidia, tmp_path):
    nvidia('[ "$1" = --query-gpu=memory.total ] && printf "81559\\n24564\\n"')
    assert smallest_bytes(tmp_path) == 24564 << 20
    device = tmp_path / "card1/device"
    device.mkdir(parents=True)
    (device / "mem_info_vram_total").write_text("17163091968\n")
    assert smallest_bytes(tmp_path) == 17163091968


@pytest.mark.parametrize("script", ["echo [N/A]", "echo no devices were found; exit 6", "exit 0"])
def test_memory_that_no_driver_tells_is_unknown(nvidia, tmp_path, script):
    nvidia(script)
    assert smallest_bytes(tmp_path) == 0


def test_a_machine_without_gpus_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert smallest_bytes(tmp_path) == 0
