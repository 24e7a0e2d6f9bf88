import pytest

from puna.models import program
from puna.models.program import ProgramError


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Make a module of some source; return its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

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
