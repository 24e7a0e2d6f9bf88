import os
import signal
import sys
from pathlib import Path

import pytest

from puna.errors import LoadFailedError
from puna.plugins import Host, Manifest, Plugin
from puna.runtime import host_process
from puna.runtime.host_process import HostProcess, cause, terminated

BACKEND = Plugin(
    name="scripted",
    manifest=Manifest(name="scripted", host=Host(python_class="puna_scripted:ScriptedBackend")),
    command=(sys.executable, "-P", "-m", "puna.host", "puna_scripted:ScriptedBackend"),
)


@pytest.fixture
async def host(short_path):
    host = await HostProcess.start(BACKEND, short_path / "s")
    yield host
    await host.stop()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (-9, "SIGKILL (killed, probably out of memory)"),
        (-4, "SIGILL (the CPU lacks instructions that the backend was built for)"),
        (-11, "SIGSEGV (segmentation fault in native code)"),
        (-1, "SIGHUP"),
        (-40, "signal 40"),
        (None, "the connection to it broke"),
    ],
)
def test_an_exit_status_is_explained(status, text):
    assert cause(status) == text


async def test_stopping_leaves_neither_process_nor_socket(host, short_path):
    assert (short_path / "s").is_socket()
    assert os.getpgid(host.pid) == host.pid
    await host.stop()
    await host.stop()
    assert list(short_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(host.pid, 0)


async def test_one_that_does_not_listen_to_reason_is_killed(host, monkeypatch):
    monkeypatch.setattr(host_process, "TERM_SECONDS", 0.1)
    os.kill(host.pid, signal.SIGSTOP)
    await host.stop()
    assert host.explain().startswith("SIGKILL")


async def test_a_death_is_seen(host):
    assert not await host.died(within=0.01)
    os.kill(host.pid, signal.SIGBUS)
    assert await host.died(within=10)
    assert host.explain().startswith("SIGBUS (bus error")


async def test_a_host_that_cannot_start_says_why(short_path, monkeypatch):
    (short_path / "sitecustomize.py").write_text("import os, sys; sys.stderr.write('oh no\\n'); os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(short_path))
    with pytest.raises(LoadFailedError, match="llama-server process has terminated: exit status 7: oh no"):
        await HostProcess.start(BACKEND, short_path / "s")


async def test_a_host_that_never_listens_is_given_up(short_path, monkeypatch):
    (short_path / "sitecustomize.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(short_path))
    with pytest.raises(LoadFailedError, match="timed out"):
        await HostProcess.start(BACKEND, short_path / "s", 0.2)


async def test_what_lies_in_the_current_folder_is_not_imported(short_path, monkeypatch):
    (short_path / "grpc.py").write_text("raise ImportError('not this one')")
    monkeypatch.chdir(short_path)
    host = await HostProcess.start(BACKEND, short_path / "s")
    await host.stop()


async def test_the_last_lines_are_kept_and_the_very_last_told(short_path, monkeypatch):
    (short_path / "sitecustomize.py").write_text(
        "import os, sys\nfor n in range(30): sys.stderr.write(f'line {n}\\n\\n')\n"
        "sys.stderr.write('no end'); sys.stderr.flush(); os._exit(1)"
    )
    monkeypatch.setenv("PYTHONPATH", str(short_path))
    with pytest.raises(LoadFailedError) as failure:
        await HostProcess.start(BACKEND, short_path / "s")
    assert str(failure.value) == terminated("exit status 1: line 28 | line 29 | no end")


async def test_a_warning_of_punas_own_code_reaches_the_log_once(short_path, monkeypatch, caplog):
    (short_path / "sitecustomize.py").write_text(
        "import sys\nsys.stderr.write('WARNING puna_x.y: no kernels\\nWARNING other: noise\\nINFO puna_x: fine\\n')"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(short_path), os.environ.get("PYTHONPATH", "")]))
    host_process.warn_once.cache_clear()
    for name in ("a", "b"):
        host = await HostProcess.start(BACKEND, short_path / name)
        await host.stop()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["puna_x.y: no kernels"]


def variables(pid):
    return Path(f"/proc/{pid}/environ").read_text()


SHELL = 'echo "$0 $ACME_KEY $PYTHONPATH" >&2; echo "puna.backend.v1 ready"; cat'


async def test_a_host_may_be_any_program_with_the_variables_that_the_manifest_names(short_path, monkeypatch):
    monkeypatch.setenv("ACME_KEY", "passed")
    monkeypatch.setenv("OTHER_KEY", "kept")
    monkeypatch.setenv("PYTHONPATH", "/operators")
    manifest = Manifest(name="sh", host=Host(command=("sh",), environment=("ACME_*",)))
    backend = Plugin(name="sh", manifest=manifest, command=("/bin/sh", "-c", SHELL, "first"), python_path="/own")
    host = await HostProcess.start(backend, short_path / "s")
    try:
        assert "kept" not in variables(host.pid)
    finally:
        await host.stop()
    assert host.last_line == "first passed /own:/operators"


@pytest.mark.parametrize("program", ["/no/such/program", __file__, "/etc"])
async def test_a_program_that_cannot_be_started_is_an_error_of_the_load(short_path, program):
    backend = Plugin(name="sh", manifest=Manifest(name="sh"), command=(program,))
    with pytest.raises(LoadFailedError, match="the host of backend 'sh' cannot be started: "):
        await HostProcess.start(backend, short_path / "s")
