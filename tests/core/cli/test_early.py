import signal
import subprocess
import sys

import pytest

from puna.cli.early import status_of

BEGIN = """
import os, signal, time
from puna.cli import early
early.begin()
{more}
os.kill(os.getpid(), signal.{name})
{after}
"""


def ended(name, more="pass", after="time.sleep(30)", **how):
    code = BEGIN.format(name=name, more=more, after=after)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, **how)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_during_the_start_ends_without_a_traceback(name):
    done = ended(name)
    assert (done.returncode, done.stderr) == (status_of(getattr(signal, name)), "")


def test_a_command_that_does_not_serve_hears_ctrl_c_as_an_exception():
    done = ended("SIGINT", more="early.interruptible()")
    assert "KeyboardInterrupt" in done.stderr


def test_signals_after_the_end_have_no_effect():
    done = ended("SIGTERM", more="early.ignore()", after="print('done')")
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_a_process_under_nohup_outlives_its_terminal():
    done = ended("SIGHUP", after="print('alive')", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert (done.returncode, done.stdout) == (0, "alive\n")
