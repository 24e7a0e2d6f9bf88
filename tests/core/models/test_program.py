import os
import signal
import subprocess
import sys
import tempfile

import pytest
from tests.e2e.server import parents, wait_until

from puna.errors import CreateFailedError
from puna.models import program
from puna.models.program import ProgramError
from puna.process import temporary_folders


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Make a module of some source; return its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def written(source):
        (tmp_path / "script.py").write_text(source)
        return "script"

    return written


def test_progress_and_input(script):
    name = script("import sys\nprint('noise')\nprint('progress', len(sys.stdin.read()), sys.argv[1])")
    assert list(program.run(name, "7", given="hello")) == [(5, 7)]


def test_failing(script):
    with pytest.raises(ProgramError) as caught:
        list(program.run(script("import sys; sys.exit('first\\nlast')")))
    assert (str(caught.value), caught.value.status, caught.value.said) == ("exit status 1", 1, "first\nlast")


def test_dying(script):
    with pytest.raises(ProgramError, match=r"^signal: 9$"):
        list(program.run(script("import os; os.kill(os.getpid(), 9)")))


def test_closing_ends_it(script):
    running = program.run(script("import time\nprint('progress 1 2', flush=True)\ntime.sleep(600)"))
    assert next(running) == (1, 2)
    running.close()


def test_a_silent_program_can_be_stopped(script):
    asked = iter([False, False, True])
    running = program.run(
        script("import time\nprint('progress 1 2', flush=True)\ntime.sleep(600)"), stopped=lambda: next(asked)
    )
    with pytest.raises(CreateFailedError, match=r"^request canceled$"):
        list(running)


def test_it_may_leave_temporary_files(script, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    name = script("import tempfile, os\ntempfile.mkdtemp()\nprint('progress 1 2', flush=True)\nos.kill(os.getpid(), 9)")
    with pytest.raises(ProgramError):
        list(program.run(name))
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} <= {"__pycache__"}


@pytest.mark.parametrize("busy", ["time.sleep(600)", "import ctypes; ctypes.PyDLL(None).sleep(600)"])
def test_it_dies_with_its_parent(script, tmp_path, busy):
    """The second one never lets go of the interpreter's lock, as native code may do."""
    name = script(f"import os, time\nprint('progress', os.getpid(), 2, flush=True)\n{busy}")
    source = f"from puna.models import program\nfor pid, _ in program.run({name!r}): print(pid, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", source], env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        assert pid in parents()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: pid not in parents(), 5)


def test_what_a_dead_parent_left_is_swept_up(script, tmp_path):
    name = script("import time\nprint('progress 1 2', flush=True)\ntime.sleep(600)")
    source = f"from puna.models import program\nfor each in program.run({name!r}): print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", source], env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE
    ) as parent:
        parent.stdout.readline()
        left = [path for path in tmp_path.iterdir() if path.name.startswith(temporary_folders.PREFIX)]
        temporary_folders.sweep(tmp_path)
        assert [path.exists() for path in left] == [True]
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert [path.exists() for path in left] == [True]
    wait_until(lambda: temporary_folders.sweep(tmp_path) or not left[0].exists(), 5)


def test_warnings_are_logged(script, caplog):
    assert list(program.run(script("print('warning the pattern is unknown')"))) == []
    assert caplog.messages == ["script: the pattern is unknown"]
