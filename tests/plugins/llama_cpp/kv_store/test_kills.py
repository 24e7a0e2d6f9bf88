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
    return SequenceStore(CacheFolder(root, LIMIT), b"model", None, lambda length: 0)


def sequence(number):
    """Return the tokens of one of the sequences, and its state."""
    state = hashlib.sha256(bytes([number])).digest() * (100_000 + number)
    return [number, *range(200)], np.frombuffer(state, np.uint8)


def holds(store, number):
    """Return whether a sequence can be read, and assert that it is what was written."""
    tokens, expected = sequence(number)
    found = store.find(tokens, "", len(tokens))
    if found is None or found.common < len(tokens):
        return False
    state = store.read(found, proceed)
    assert state is None or np.array_equal(state, expected)
    return state is not None


def visit(store, number):
    """Read a sequence, or write it."""
    if not holds(store, number):
        store.write(sequence(number)[0], "", sequence(number)[1], 0.0, proceed)


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
    assert sum(holds(store, number) for number in range(40)) > 0
    visit(store, 40)  # a writer removes what dead ones have left
    assert not list(root.rglob("*.new"))
    assert sum(path.stat().st_size for path in root.rglob("*.kv")) <= LIMIT
