import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "models"


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "puna_llama_cpp.quantize", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_copy_writes_what_the_reference_stores(tmp_path):
    ran = run(MODELS / "scripted.gguf", tmp_path / "out.gguf", "COPY")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [f"progress {done} 12" for done in range(1, 13)]
    # the digest of the model layer that Ollama made of this file
    digest = hashlib.sha256((tmp_path / "out.gguf").read_bytes()).hexdigest()
    assert digest == "62981de3c00c91332ad8daaed32c1e58075e9bd0a7318ec72e17dddeec9fe4b3"


@pytest.mark.parametrize("name", ["Q8_0", "q8_0", "F16"])
def test_quantising_makes_it_smaller(tmp_path, name):
    ran = run(MODELS / "scripted.gguf", tmp_path / "out.gguf", name)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == "progress 12 12"
    assert (tmp_path / "out.gguf").stat().st_size < (MODELS / "scripted.gguf").stat().st_size


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "in.gguf").write_text("hello")
    ran = run(tmp_path / "in.gguf", tmp_path / "out.gguf", "COPY")
    assert ran.returncode == 1
    assert "failed to load model" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_unknown_type_is_refused(tmp_path):
    ran = run(MODELS / "scripted.gguf", tmp_path / "out.gguf", "Q9_9")
    assert (ran.returncode, ran.stderr) == (1, "unknown quantization type Q9_9\n")
