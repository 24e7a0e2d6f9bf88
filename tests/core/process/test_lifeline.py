import os
import signal
import subprocess
import sys


def start(module, reader):
    return subprocess.Popen(
        [sys.executable, "-m", "puna.process.lifeline", str(reader), module, "x"],
        pass_fds=(reader,),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_module_runs_with_its_arguments(tmp_path, monkeypatch):
    (tmp_path / "told.py").write_text("import sys; print(sys.argv[1:], __name__)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    reader, writer = os.pipe()
    with start("told", reader) as child:
        os.close(reader)
        assert child.stdout.read() == "['x'] __main__\n"
    assert child.returncode == 0
    os.close(writer)


def test_it_is_killed_when_the_pipe_closes(tmp_path, monkeypatch):
    (tmp_path / "sleeper.py").write_text("import time; print('up', flush=True); time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    reader, writer = os.pipe()
    with start("sleeper", reader) as child:
        os.close(reader)
        assert child.stdout.readline() == "up\n"
        os.close(writer)
        assert child.wait(20) == -signal.SIGKILL
