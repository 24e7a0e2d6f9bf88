import subprocess
import sys

import pytest

START = """
import os, signal, sys, time
from puna.cli.signals import Signals, finish
signals = Signals()
def kill(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
def in_order():
    print("in order", flush=True)
"""


def ended(*lines):
    code = START + "\n".join(lines)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_before_the_server_is_ready_ends_it_at_once(number, status):
    done = ended(f"kill(signal.{number})", "time.sleep(30)")
    assert (done.returncode, done.stderr) == (status, "")


def test_the_first_signal_is_heard_in_order_and_the_second_ends_at_once():
    done = ended("signals.expect(in_order)", "kill()", "time.sleep(0.3)", "kill(signal.SIGINT)", "time.sleep(30)")
    assert (done.returncode, done.stdout, done.stderr) == (130, "in order\n", "")


def test_a_stop_that_takes_too_long_ends_with_the_status_of_its_signal():
    done = ended("signals.expect(in_order)", "kill()", "time.sleep(0.2)", "signals.end_within(0.1)", "time.sleep(30)")
    assert (done.returncode, done.stdout) == (143, "in order\n")


def test_the_end_flushes_output_and_keeps_its_status_whatever_signals_come():
    done = ended("sys.stdout.write('last words')", "signals.end_within(float('inf'))", "finish(3)")
    assert (done.returncode, done.stdout) == (3, "last words")
