"""A comparison of the kernels with ggml's own functions, bit by bit, on the processor at hand.

The kernels promise ggml's bits, and the promise rests on how ggml was compiled: another compiler's choice of fused
multiplications, or other instruction sets, change the last bits of ggml's own sums. So each process that loads the
kernels computes a few small nodes twice, with the kernels and without. It takes a few milliseconds. The nodes stand for
the usual paths; the tests compare all the others.
"""

import ctypes
import random
import struct
from typing import Final

from puna_ggml_kernels import ggml

_MEMORY_BYTES: Final = 4 << 20
_ROWS, _LENGTH = 20, 256  # a whole panel of 16 rows and a part of one; one super-block of a k-quant
# 80 positions are a whole tile of prefill and a part of one.
_HEADS, _HEAD_SIZE, _POSITIONS, _PREFILL = 2, 64, 80, 64
_SCALE: Final = 1 / 20_000
"""Scales the scores of attention, for values as large as a byte, so that no weight dominates and not all are equal."""


def differences(library: ctypes.CDLL) -> list[str]:
    """Return the nodes to which the kernels give other bits than ggml, or which they miss. Leaves the kernels on."""
    found = []
    for name, make, argument, calls in (
        ("a product with Q8_0", _product, ggml.Q8_0, library.puna_matmul_calls),
        ("a product with Q4_1", _product, ggml.Q4_1, library.puna_matmul_calls),
        ("a product with Q6_K", _product, ggml.Q6_K, library.puna_matmul_calls),
        ("attention in decoding", _attention, 1, library.puna_attention_calls),
        ("attention in prefill", _attention, _PREFILL, library.puna_attention_calls),
    ):
        with ggml.Graph(_MEMORY_BYTES) as graph:
            node = make(graph, argument)
            library.puna_enable(False)
            expected = graph.compute(node)
            library.puna_enable(True)
            before = calls()
            if graph.compute(node) != expected:
                found.append(f"{name} (other bits)")
            # If ggml never called the kernel, it was compared with itself.
            elif calls() == before:
                found.append(f"{name} (ggml does not call it)")
    return found


def _values(count: int, seed: int) -> tuple[int, ...]:
    """Return the same whole numbers every time, from -128 to 127."""
    return struct.unpack(f"{count}b", random.Random(seed).randbytes(count))


def _packed(kind: str, values: tuple[float, ...]) -> bytes:
    return struct.pack(f"{len(values)}{kind}", *values)


def _product(graph: ggml.Graph, kind: int) -> int:
    # Two columns are multiplied at once (matmul_q8_0.h), and the third is left over.
    columns = 3
    matrix = graph.quantized(kind, _LENGTH, _values(_ROWS * _LENGTH, 1))
    values = _packed("f", _values(columns * _LENGTH, 2))
    return graph.multiply(matrix, graph.tensor(ggml.F32, (_LENGTH, columns), values))


def _attention(graph: ggml.Graph, rows: int) -> int:
    query = _packed("f", _values(_HEADS * rows * _HEAD_SIZE, 3))
    key, value = (_packed("e", _values(_POSITIONS * _HEAD_SIZE, seed)) for seed in (4, 5))
    # A causal mask: each row sees one position more than the row before.
    first = _POSITIONS - _PREFILL + 1
    mask = tuple(x for row in range(_PREFILL) for x in _mask_row(first + row))
    return graph.attention(
        graph.tensor(ggml.F32, (_HEAD_SIZE, rows, _HEADS), query),
        graph.tensor(ggml.F16, (_HEAD_SIZE, _POSITIONS), key),
        graph.tensor(ggml.F16, (_HEAD_SIZE, _POSITIONS), value),
        graph.tensor(ggml.F16, (_POSITIONS, _PREFILL), _packed("e", mask)),
        _SCALE,
    )


def _mask_row(visible: int) -> list[float]:
    return [0.0] * visible + [-float("inf")] * (_POSITIONS - visible)
