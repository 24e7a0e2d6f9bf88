import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from puna_llama_cpp.binding.native_log import captured_log

DEBUG, WARNING, ERROR = 1, 3, 4
MODELS = Path(__file__).parents[3] / "models"
EXIT = """
import asyncio, builtins, logging, sys
from puna.backend import ModelSpec
from puna_llama_cpp import LlamaCppBackend

class Held:
    def __init__(self, model, free):
        self.model, self.free = model, free

    def __del__(self):
        self.free(self.model._context.pointer)

spec = ModelSpec(path=sys.argv[1], projector_paths=(sys.argv[2],), threads=1)
model = asyncio.run(LlamaCppBackend().load(spec, lambda done: None))
logging.held = Held(model, sys.modules["llama_cpp.llama_cpp"].llama_free)
# Python clears the names of a module that something still holds.
import puna_llama_cpp.binding.native_log as kept
builtins.kept = kept
"""
"""A program that leaves a model open, whose context is freed when the modules are cleared already."""


@pytest.fixture
def log():
    log = captured_log()
    log.clear()
    yield log
    log.clear()


def say(log, *messages):
    for level, text in messages:
        log._on_message(level, text.encode(), None)


def test_parts_of_a_line_are_put_together(log, caplog):
    with caplog.at_level(logging.DEBUG):
        say(log, (DEBUG, "load"), (DEBUG, "ing: 5"), (DEBUG, " %\nnext"), (DEBUG, "\n"))
    assert caplog.messages[-2:] == ["loading: 5 %", "next"]


def test_errors_are_errors_and_an_abort_on_demand_is_none(log, caplog):
    with caplog.at_level(logging.DEBUG):
        say(log, (ERROR, "no room\n"), (ERROR, "llama_decode: failed to decode, ret = 2\n"), (WARNING, "odd\n"))
    assert [record.levelno for record in caplog.records[-3:]] == [logging.ERROR, logging.DEBUG, logging.INFO]
    assert log.last_error() == "no room"


def test_the_reason_of_a_failed_load_is_told_not_the_last_line(log):
    say(log, (ERROR, "llama_model_load: error loading model: tensor x is missing\n"), (ERROR, "failed to load model\n"))
    assert log.load_error() == "tensor x is missing"
    log.clear()
    assert log.load_error() == ""


def test_a_thread_reads_its_own_lines_alone(log):
    say(log, (ERROR, "mine: CPU buffer size = 1.00 MiB\n"), (DEBUG, "a line that "))
    other = threading.Thread(target=say, args=(log, (ERROR, "other: CPU buffer size = 2.00 MiB\n")))
    other.start()
    other.join()
    assert log.last_error().startswith("mine")
    assert log.buffer_bytes() == (1 << 20, 0)
    say(log, (ERROR, "goes on\n"))
    assert log.last_error() == "a line that goes on"


def test_buffers_are_counted_by_where_they_are(log):
    say(
        log,
        (DEBUG, "load_tensors:   CPU_Mapped model buffer size =   100.00 MiB\n"),
        (DEBUG, "load_tensors:        CUDA0 model buffer size =    50.00 MiB\n"),
        (DEBUG, "llama_kv_cache:        CPU KV buffer size =    8.00 MiB\n"),
    )
    assert log.buffer_bytes() == (158 << 20, 50 << 20)
    assert log.cache_bytes() == 8 << 20


def test_a_program_that_ends_with_an_open_model_prints_nothing():
    paths = [str(MODELS / f"{name}.gguf") for name in ("chatter", "chatter-eye")]
    ended = subprocess.run([sys.executable, "-c", EXIT, *paths], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
