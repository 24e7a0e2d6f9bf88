"""Processes that share a folder and are killed while they write: what is read is right, and the limit holds."""

import hashlib
import subprocess
import sys

import numpy as np

from puna_llama_cpp.kv_store.folder import CacheFolder
from puna_llama_cpp.kv_store.store import SequenceStore

LIMIT = 40 << 20
PROGRAM = """
import sys
from pathlib import Path
from tests.plugins.llama_cpp.kv_store.test_kills import LIMIT, store_of, visit
store = store_of(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**9):
    visit(store, number % 40)
    print(number, flush=True)
"""


def proceed():
    pass


def store_of(root):
    return SequenceStore(CacheFolder(root, LIMIT), b"model", None, cuts=True)


def visit(store, number):
    """Read one of the sequences, each with a state of its own, or write it. Return whether it was there."""
    tokens = [number, *range(200)]
    expected = np.frombuffer(hashlib.sha256(bytes([number])).digest() * (100_000 + number), np.uint8)
    found = store.find(tokens, "", len(tokens))
    if found is not None and found.common == len(tokens):
        state = store.read(found, proceed)
        assert state is None or np.array_equal(state, expected)
        return state is not None
    store.write(tokens, "", expected, 0.0, proceed)
    return False


def test_writers_that_are_killed(tmp_path):
    root = tmp_path / "cache"
    for round_number in range(2):
        writers = [
            subprocess.Popen([sys.executable, "-c", PROGRAM, root, str(13 * each)], stdout=subprocess.PIPE)
            for each in range(2)
        ]
        try:
            for writer in writers:
                for _ in range(5 + round_number):
                    assert writer.stdout.readline()
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
                writer.stdout.close()
    store = store_of(root)
    assert sum(visit(store, number) for number in range(40)) > 0
    assert not list(root.rglob("*.new"))
    assert sum(path.stat().st_size for path in root.rglob("*.kv")) <= LIMIT
