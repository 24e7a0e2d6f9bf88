"""The limit that memory sets: the bandwidth of this machine, and the bytes that one token needs of a model's weights.

Each token of one stream reads all weights once, except the table of embeddings, of which it reads a row. Weights are
larger than caches, so no engine decodes faster than bandwidth ÷ bytes. The KV cache is left out: a short conversation's
is a few per cent of the weights.
"""

import ctypes
import threading
import time
from pathlib import Path

from puna.gguf import reader

_PART = 256 << 20
"""Bytes that each thread reads at once: many times the caches."""
_EMBEDDINGS = "token_embd.weight"
_OUTPUT = "output.weight"
_EXPERTS = "_exps."


def bandwidth(threads: int, passes: int = 24) -> float:
    """Measure how many bytes a second some threads read together: the best of a few passes over memory.

    The C library's memchr looks for a byte that is not there, with the widest vectors of the processor.
    """
    search = ctypes.CDLL(None).memchr
    search.restype = ctypes.c_void_p
    search.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    ready = threading.Barrier(threads)
    spent: list[list[tuple[float, float]]] = [[] for _ in range(threads)]

    def read(own: list[tuple[float, float]]) -> None:
        # Filled by the thread that reads it, so that it lies in memory near this thread's core.
        part = ctypes.create_string_buffer(_PART)
        ctypes.memset(part, 1, _PART)
        for _ in range(passes):
            ready.wait()
            began = time.perf_counter()
            search(part, 2, _PART)
            own.append((began, time.perf_counter()))

    workers = [threading.Thread(target=read, args=(own,)) for own in spent]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    spans = [max(end for _, end in each) - min(begin for begin, _ in each) for each in zip(*spent, strict=True)]
    return threads * _PART / min(spans)


def bytes_per_token(path: Path) -> float:
    """Return how many bytes of a GGUF file's weights one token reads."""
    model = reader.read(path)
    tensors = {each.name: each for each in model.tensors}
    used, experts = (model.integer(name) for name in ("expert_used_count", "expert_count"))
    share = used / experts if used and experts else 1.0
    total = 0.0
    for name, tensor in tensors.items():
        # Without an output matrix of its own, a model multiplies with the whole table of embeddings.
        if name == _EMBEDDINGS and _OUTPUT in tensors:
            continue
        total += tensor.size * share if _EXPERTS in name else tensor.size
    return total
