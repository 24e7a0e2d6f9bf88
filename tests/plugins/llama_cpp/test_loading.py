"""Opening models: what a host reports when llama.cpp aborts."""

import subprocess
import sys

from tests.e2e.server import MODELS

ABORTS = """
from puna.backend import ModelSpec
from puna_llama_cpp.loading import open_model
from llama_cpp._ggml import libggml
open_model(ModelSpec(path={model!r}), lambda _: None, lambda: False)
libggml.ggml_abort(b"file.c", 7, b"the reason")
"""


def test_an_abort_says_its_reason_last():
    code = ABORTS.format(model=str(MODELS / "scripted.gguf"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -6
    assert done.stderr.splitlines()[-1] == "file.c:7: the reason"
