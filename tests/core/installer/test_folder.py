"""Whatever interrupts a change, readers see the old plugin or the new one, and the next change removes the rest."""

import signal
import subprocess
import sys

import pytest

from puna.installer.errors import PluginInstallError
from puna.installer.folder import changing
from puna.plugins.installed import ENVIRONMENTS, InstalledPlugin, holding, read_all


def plugin(folder, version="1", distribution="puna-echo"):
    return InstalledPlugin(folder=folder, distribution=distribution, version=version, spec="x", backends=("echo",))


def install(path, version, name="puna-echo"):
    with changing(path) as plugins, plugins.new_environment() as folder:
        made = plugin(folder, version, name)
        made.write()
        plugins.publish(name, folder)
    return made


def environments(path):
    return sorted(each.name for each in (path / ENVIRONMENTS).iterdir())


def test_a_plugin_appears_and_is_replaced_and_disappears(tmp_path):
    first = install(tmp_path, "1")
    assert list(read_all(tmp_path)) == [first]
    second = install(tmp_path, "2")
    assert list(read_all(tmp_path)) == [second]
    assert environments(tmp_path) == [second.folder.name]
    with changing(tmp_path) as plugins:
        plugins.withdraw("puna-echo")
    assert list(read_all(tmp_path)) == []
    assert environments(tmp_path) == []


def test_a_failure_before_the_end_leaves_the_old_version(tmp_path):
    first = install(tmp_path, "1")

    def fail():
        with changing(tmp_path) as plugins, plugins.new_environment() as folder:
            plugin(folder, "2").write()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(read_all(tmp_path)) == [first]
    assert environments(tmp_path) == [first.folder.name]


KILLED = """
import sys, time
from pathlib import Path
from puna.installer.folder import changing
with changing(Path(sys.argv[1])) as plugins, plugins.new_environment() as folder:
    (folder / "half").write_text("a")
    print("made", flush=True)
    time.sleep(60)
"""


def test_a_killed_change_is_invisible_and_the_next_one_clears_it_away(tmp_path):
    first = install(tmp_path, "1")
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "made\n"
        process.send_signal(signal.SIGKILL)
    assert list(read_all(tmp_path)) == [first]
    assert len(environments(tmp_path)) == 2
    with changing(tmp_path):
        assert environments(tmp_path) == [first.folder.name]


def test_changes_wait_for_each_other(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "made\n"
        with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(timeout=0.5)
            process.kill()
            assert second.stdout.readline() == "made\n"
            second.kill()


def test_an_environment_that_a_host_uses_outlives_its_plugin(tmp_path):
    first = install(tmp_path, "1")
    # A host inherits the descriptor and outlives the server that opened it.
    with holding(first.folder) as inherited:
        host = subprocess.Popen(["sleep", "60"], pass_fds=inherited)
    with host:
        second = install(tmp_path, "2")
        assert first.folder.exists()
        with changing(tmp_path) as plugins:
            plugins.withdraw("puna-echo")
        assert environments(tmp_path) == [first.folder.name]
        assert not second.folder.exists()
        host.kill()
    with changing(tmp_path):
        assert environments(tmp_path) == []


def test_a_removed_environment_cannot_be_held(tmp_path):
    first = install(tmp_path, "1")
    install(tmp_path, "2")
    with holding(first.folder) as inherited:
        assert inherited == ()


def test_a_folder_of_the_operators_is_not_replaced(tmp_path):
    (tmp_path / "puna-echo").mkdir()
    with pytest.raises(PluginInstallError, match="is in the way"):
        install(tmp_path, "1")
    assert (tmp_path / "puna-echo").is_dir()
    assert environments(tmp_path) == []
