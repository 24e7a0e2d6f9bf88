"""Copies, builds and runs the projects of the five languages."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROTO = ROOT / "proto"
KEPT = Path(sys.prefix) / "grpc_clients"
"""The folder of the projects' copies with what their builds leave. It is inside .venv, which git ignores."""
SECONDS = 600


def run(*command, path="", **how):
    """Run a command; return what it printed, or fail with it. `path`: folders to put before those of PATH.

    All processes that it started have ended afterwards: a test program that dies leaves its servers behind.
    """
    environment = how.pop("env", os.environ)
    environment = environment | {"PATH": os.pathsep.join(filter(None, [str(path), environment["PATH"]]))}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, start_new_session=True, env=environment, **options | how) as process:
        try:
            text, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            text = f"it has not ended within {SECONDS} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        pytest.fail(f"{' '.join(map(str, command))}:\n{text}", pytrace=False)
    return text


def copy(language, *kept):
    """Copy the project of a language to where it is built; return the folder.

    `kept`: names of what an earlier build left there and this one can use again. Everything else is removed.
    """
    home = KEPT / language
    home.mkdir(parents=True, exist_ok=True)
    for each in home.iterdir():
        if each.name not in kept:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    shutil.copytree(HERE / language, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*kept))
    return home


def write_protoc(folder):
    """Write a program `protoc` into a folder: the compiler of grpcio-tools."""
    program = folder / "protoc"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m grpc_tools.protoc "$@"\n')
    program.chmod(0o755)
    return program
