import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from puna.process.exit import kill_group


def run(code):
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], text=True, capture_output=True, check=False)


def alive(pid):
    """Tell whether a process runs; one that only waits for its parent to notice its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_ends_at_once_with_its_children_and_files(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "inside").touch()
    file.touch()
    done = run(f"""
        import atexit, subprocess, sys
        from puna.process import exit as process_exit
        atexit.register(print, "never said")
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group=0)
        process_exit.GROUPS.add(child.pid)
        process_exit.PATHS.update(({str(folder)!r}, {str(file)!r}))
        print(child.pid, flush=True)
        process_exit.exit_now(7)
    """)
    assert done.returncode == 7
    assert "never said" not in done.stdout
    assert not folder.exists()
    assert not file.exists()
    child = int(done.stdout)
    for _ in range(500):  # the kernel may take a moment
        if not alive(child):
            break
        time.sleep(0.01)
    assert not alive(child)


def test_a_group_that_is_gone_is_no_error():
    child = subprocess.Popen([sys.executable, "-c", ""], process_group=0)
    child.wait()
    kill_group(child.pid)
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)
