"""Computes operations of ggml, each in a process that it may end: prints which of them ggml computes.

Lines of standard input are `OPERATION TYPE...`, with ggml's name of the operation and the numbers of its operands'
types. The answers are lines `0` and `1`.
"""

import ctypes
import os
import resource
import sys
from ctypes import c_float, c_int, c_int64, c_void_p

from puna_ggml_kernels import ggml

I32 = 26
COLUMNS, ROWS = 256, 2
ONE_OPERAND = {
    "SQR": ("ggml_sqr",),
    "UNARY": ("ggml_silu",),
    "RMS_NORM": ("ggml_rms_norm", (c_float, 1e-5)),
    "SUM_ROWS": ("ggml_sum_rows",),
    "CONT": ("ggml_cont",),
    "SCALE": ("ggml_scale", (c_float, 2.0)),
    "CLAMP": ("ggml_clamp", (c_float, -1.0), (c_float, 1.0)),
    "REPEAT": ("ggml_repeat_4d", *[(c_int64, size) for size in (COLUMNS, 2 * ROWS, 1, 1)]),
}
TWO_OPERANDS = ("ADD", "SUB", "MUL", "DIV", "GET_ROWS", "MUL_MAT", "SSM_CONV")


def compute(operation: str, *types: int) -> None:
    """Compute an operation on zeros."""
    with ggml.Graph(1 << 20) as graph:
        shapes = [(COLUMNS, ROWS) for _ in types]
        if operation == "GET_ROWS":
            shapes[1] = (1,)
        if operation == "SSM_CONV":
            shapes[0] = (COLUMNS + 1, ROWS)
        tensors = [graph.tensor(kind, shape, b"") for kind, shape in zip(types, shapes, strict=True)]
        for tensor in tensors:
            size = ggml.function("ggml_nbytes", ctypes.c_size_t, c_void_p)(tensor)
            ctypes.memset(graph._data(tensor), 0, size)
        if operation in TWO_OPERANDS:
            make = ggml.function(f"ggml_{operation.lower()}", c_void_p, c_void_p, c_void_p, c_void_p)
            node = make(graph._context, *tensors)
        elif operation == "CPY":
            node = ggml.function("ggml_cast", c_void_p, c_void_p, c_void_p, c_int)(graph._context, *tensors, ggml.F32)
        else:
            name, *more = ONE_OPERAND[operation]
            make = ggml.function(name, c_void_p, c_void_p, c_void_p, *[kind for kind, _ in more])
            node = make(graph._context, *tensors, *[value for _, value in more])
        graph.compute(node)


def main() -> None:
    """Answer all lines."""
    os.environ["GGML_NO_BACKTRACE"] = "1"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        operation, *types = line.split()
        child = os.fork()
        if not child:
            compute(operation, *map(int, types))
            os._exit(0)
        ended_by_itself = os.waitpid(child, 0)[1] == 0
        sys.stdout.write(f"{int(ended_by_itself)}\n")


if __name__ == "__main__":
    main()
