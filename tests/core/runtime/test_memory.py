import pytest

from puna.runtime.memory import free_bytes


@pytest.fixture
def machine(tmp_path):
    """A machine with 8 MB available, and a way to put us into a container there."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16000 kB\nMemFree: 1000 kB\nMemAvailable: 8000 kB\n")

    def free(**container):
        for name, text in container.items():
            (tmp_path / f"memory.{name}").write_text(text)
        return free_bytes(meminfo, tmp_path)

    return free


def test_free_is_what_can_be_had_without_swapping(machine):
    assert machine() == 8000 * 1024


def test_a_container_may_have_less(machine):
    stat = "anon 5\ninactive_file 1000000\nactive_file 7\n"
    assert machine(max="5000000\n", current="3000000\n", stat=stat) == 3_000_000  # files read once are no loss
    assert machine(max="3000000\n", current="5000000\n", stat=stat) == 1  # known to be none, not unknown
    assert machine(max="50000000\n") == 8000 * 1024
    assert machine(max="max\n") == 8000 * 1024


def test_where_nobody_knows(tmp_path):
    assert free_bytes(tmp_path / "none", tmp_path) == 0


def test_this_machine():
    assert free_bytes() > 1 << 20
