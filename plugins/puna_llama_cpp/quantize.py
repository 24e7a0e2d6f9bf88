"""Copies and quantizes GGUF files: `python -m puna_llama_cpp.quantize IN OUT TYPE`.

This is a program because llama.cpp reports its progress only through the log, of which each process has one. TYPE is
the name of a file type, such as Q8_0, or COPY, which writes the tensors unchanged in llama.cpp's own layout. Lines
`progress DONE TOTAL` (tensors) go to stdout. An error goes to stderr, and the exit status is 1.
"""

import ctypes
import re
import sys
from collections.abc import Callable

import llama_cpp.llama_cpp as lib

_TENSOR = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")
_ERROR = 4
# Names whose constant in llama.cpp is not LLAMA_FTYPE_MOSTLY_<name>.
_FILE_TYPES = {
    "F32": lib.LLAMA_FTYPE_ALL_F32,
    # A k-quant without a size means the medium one, as in llama.cpp's own program.
    "Q4_K": lib.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q5_K": lib.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "Q3_K": lib.LLAMA_FTYPE_MOSTLY_Q3_K_M,
}


class QuantizeError(Exception):
    """llama.cpp failed; the text is its last error line."""


def file_type(name: str) -> int:
    """Return llama.cpp's number of a file type, whose name may be in any case.

    Raises ValueError for an unknown name.
    """
    upper = name.upper()
    number = _FILE_TYPES.get(upper, getattr(lib, f"LLAMA_FTYPE_MOSTLY_{upper}", None))
    if not isinstance(number, int):
        raise ValueError(f"unknown quantization type {name}")
    return number


def quantize(source: str, target: str, name: str, progress: Callable[[int, int], None]) -> None:
    """Write `source` to `target` as file type `name` (or "COPY"). `progress` gets the tensors done and their total.

    Raises ValueError for an unknown type, and QuantizeError if llama.cpp fails.
    """
    errors: list[str] = []

    def listen(level: int, text: bytes, _data: object) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level == _ERROR and line:
            errors.append(line)
        elif match := _TENSOR.match(line):
            progress(int(match[1]), int(match[2]))

    parameters = lib.llama_model_quantize_default_params()
    parameters.allow_requantize = True
    if name.upper() == "COPY":
        parameters.only_copy = True
    else:
        parameters.ftype = file_type(name)
    # llama.cpp keeps a bare pointer, so the callback must stay referenced until the call returns.
    callback = lib.llama_log_callback(listen)
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    if lib.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters)) != 0:
        raise QuantizeError(errors[-1] if errors else "llama.cpp failed without a word")


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status."""
    if len(arguments) != 3:
        sys.stderr.write("usage: python -m puna_llama_cpp.quantize IN OUT TYPE\n")
        return 1

    def progress(done: int, total: int) -> None:
        sys.stdout.write(f"progress {done} {total}\n")
        # The core reads the lines through a pipe, for which Python would collect them.
        sys.stdout.flush()

    try:
        source, target, name = arguments
        quantize(source, target, name, progress)
    except (QuantizeError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
