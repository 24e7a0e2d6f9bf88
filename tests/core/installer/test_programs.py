import sys

import pytest

from puna.installer import programs
from puna.installer.errors import PluginInstallError
from puna.installer.programs import Pip, Runner, Uv


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An interpreter with no uv beside it, and an empty PATH."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_uv_beside_the_interpreter_comes_first(runner, elsewhere):
    for folder in (elsewhere, elsewhere / "path"):
        folder.mkdir(exist_ok=True)
        (folder / "uv").touch(mode=0o755)
    assert programs.find(runner) == Uv(elsewhere / "uv", runner)


def test_uv_on_the_path(runner, elsewhere, monkeypatch):
    (elsewhere / "bin").mkdir()
    (elsewhere / "bin/uv").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(elsewhere / "bin"))
    assert programs.find(runner) == Uv(elsewhere / "bin/uv", runner)


def test_without_uv_pip_does_it(runner, elsewhere):
    assert programs.find(runner) == Pip(runner)


def test_without_both_the_error_has_the_command(runner, elsewhere, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(PluginInstallError, match=r"uv, which is not installed; to install: pip install uv$"):
        programs.find(runner)


def test_a_program_that_fails_names_itself_and_its_status(runner):
    with pytest.raises(PluginInstallError, match=r"^it failed \(sh: exit status 3\)$"):
        runner.run("it failed", "sh", "-c", "exit 3")


def test_programs_work_in_the_folder_and_for_no_other_environment(runner, tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    runner.run("it failed", "sh", "-c", 'pwd > place; echo "$VIRTUAL_ENV$PYTHONPATH" > variables')
    assert (tmp_path / "place").read_text() == f"{tmp_path}\n"
    assert (tmp_path / "variables").read_text() == "\n"


def test_what_programs_print_is_not_the_answer_of_the_command(runner, capfd):
    runner.run("it failed", "sh", "-c", "echo progress")
    assert capfd.readouterr() == ("", "progress\n")
