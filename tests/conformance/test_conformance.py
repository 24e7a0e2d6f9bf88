"""The recorded answers of Ollama: 414 requests, sent to a server on an empty store."""

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.server import serving

from puna_ggml_kernels import ggml

HERE = Path(__file__).parent
BY_INSTRUCTION_SET = {"openai-embeddings-empty"}
"""Vectors that are compared digit by digit. Ollama answered with AVX-512; elsewhere ggml's last digits are others."""


def test_no_answer_differs_but_those_known(tmp_path):
    """`known.json` lists what still differs; a case that gets better must leave the list, so it can only shrink."""
    store = tmp_path / "models"
    store.mkdir()
    with serving(store, OLLAMA_NO_CLOUD="1") as server:
        done = subprocess.run(
            [sys.executable, HERE / "conformance.py", "check", server.url, "--show", "0"],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    different = next((line.split()[1:] for line in lines if line.startswith("different:")), [])
    if ggml.missing_instructions():
        different = set(different) - BY_INSTRUCTION_SET
    assert sorted(different) == json.loads((HERE / "known.json").read_text()), lines[-1]
