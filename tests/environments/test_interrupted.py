"""An installation that is killed, at many moments of its course, and what a server and the next change see of it."""

import signal
import time

import pytest
from tests.environments.conftest import answer, create, write_plugin


def duration(place, *arguments):
    """Return how long a command takes, in seconds."""
    begun = time.monotonic()
    place.plugin(*arguments)
    return time.monotonic() - begun


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_upgrade_leaves_the_old_version_or_the_new_one(place, tmp_path, number):
    source = write_plugin(tmp_path / "echo", "echo", "six", text="1", version="1")
    place.plugin("install", source)
    whole = duration(place, "upgrade", "echo")
    with place.serving(tmp_path / "models") as server:
        create(server, "m", "echo")
        for step in range(6):
            version = str(step + 2)
            write_plugin(source, "echo", "six", text=version, version=version)
            with place.start("upgrade", "echo") as process:
                time.sleep(whole * (step + 0.5) / 6)
                process.send_signal(number)
                process.communicate(timeout=60)
            listed = place.listed()["echo"]
            assert listed["fault"] == ""
            # Versions that were interrupted before may have been completed at the last moment, never later ones.
            assert int(listed["version"]) <= step + 2
            assert answer(server, "m").strip() == listed["version"]
            server.json("/api/generate", {"model": "m", "keep_alive": 0})
    place.plugin("upgrade", "echo")
    assert place.listed()["echo"]["version"] == "7"
    assert place.leftovers() == set()


def test_a_killed_installation_leaves_no_plugin(place, tmp_path):
    source = write_plugin(tmp_path / "echo", "echo", "six")
    with place.start("install", source) as process:
        # Once an environment is there, and before it can be complete.
        while not list(place.folder.glob(".environments/*/in-use")):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.communicate(timeout=60)
    assert "echo" not in place.listed()
    assert [path.name for path in place.folder.iterdir() if not path.name.startswith(".")] == []
    place.plugin("install", source)
    assert place.listed()["echo"]["fault"] == ""
    assert place.leftovers() == set()


def test_ctrl_c_cleans_up_at_once(place, tmp_path):
    source = write_plugin(tmp_path / "echo", "echo", "six")
    with place.start("install", source) as process:
        while not list(place.folder.glob(".environments/*/in-use")):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert place.leftovers() == set()
