"""Finds operations that ggml has no code for, before a model runs.

Theory. A file decides the types of its tensors, and llama.cpp makes its graph of them as they are. ggml's CPU backend
says that it supports nearly every operation. Where it has no code for the types of one, it ends the process at the
first token, or reads other numbers than there are. So the graph of a new context is made once more and not computed,
and the types of its nodes are compared with those that ggml has code for. RULES holds these for the operations whose
operands may come from a file. A GPU is asked, since a node that it computes does not reach the CPU backend.

llama.cpp exports the function that makes the graph, but its header is an internal one. So it is called under its C++
name, and only in versions of ggml that were tried. In others, a model with such an operation ends its host.
"""

import ctypes
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import llama_cpp.llama_cpp as lib
from llama_cpp._ggml import libggml

from puna.backend import InvalidRequestError
from puna_ggml_kernels import ggml
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.lazy_memory import VERSIONS, ggml_version

_MAKE_GRAPH: Final = "_Z19llama_graph_reserveP13llama_contextjjj"
_SOURCES: Final = 10
"""Operands that a node may have."""
_CPU_DEVICE: Final = 0
"""ggml's number of the type of the device that is the CPU."""

Rule = Callable[[str, tuple[str, ...]], bool]
"""Returns whether ggml computes a result of this type from operands of these types. An operand left out is ""."""

_FLOATS: Final = frozenset({"f32", "f16", "bf16"})
_NUMBERS: Final = _FLOATS | {"f64", "i8", "i16", "i32", "i64"}
"""All other types are quantized."""
_WITHOUT_PRODUCTS: Final = frozenset({"f64", "i8", "i16", "i32", "i64", "q8_1", "q8_K"})


_ADDED_OR_MULTIPLIED: Final = re.compile(rb"\.bias$|(norm|[._]ln).*\.weight$")
"""The names of a projector's biases and norms."""


class _Tensor(ctypes.Structure):
    """The struct ggml_tensor of ggml.h, up to its name."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("elements", ctypes.c_int64 * 4),
        ("strides", ctypes.c_size_t * 4),
        ("operation", ctypes.c_int),
        ("parameters", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("sources", ctypes.c_void_p * _SOURCES),
        ("view_of", ctypes.c_void_p),
        ("view_offset", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


def _combines(result: str, operands: tuple[str, ...]) -> bool:
    """Arithmetic of two tensors, element by element."""
    left, right = operands[:2]
    if left == right == result:
        return result in _FLOATS
    return right == "f32" and left in ("f16", "bf16") and result in (left, right)


def _adds(result: str, operands: tuple[str, ...]) -> bool:
    return _combines(result, operands) or (operands[0] not in _NUMBERS and operands[1] == "f32")


def _maps(result: str, operands: tuple[str, ...]) -> bool:
    """A function of each element."""
    return operands[0] in _FLOATS and result in (operands[0], "f32")


def _copies(result: str, operands: tuple[str, ...]) -> bool:
    source = operands[0]
    if source == result or source in _FLOATS:
        return True
    return result == "f32" and (source == "i32" or source not in _NUMBERS)


def _multiplies(_result: str, operands: tuple[str, ...]) -> bool:
    return operands[0] not in _WITHOUT_PRODUCTS


def _reads_rows(_result: str, operands: tuple[str, ...]) -> bool:
    return operands[0] in _FLOATS | {"i32"} or operands[0] not in _NUMBERS | {"q8_K"}


def _reads_f32(_result: str, operands: tuple[str, ...]) -> bool:
    """Floats of 32 bits, perhaps with indices."""
    return operands[0] == "f32" and set(operands) <= {"f32", "i32", ""}


RULES: Final[Mapping[str, Rule]] = {
    "ADD": _adds,
    **dict.fromkeys(("SUB", "MUL", "DIV"), _combines),
    **dict.fromkeys(("UNARY", "SQR", "SQRT", "LOG", "SIN", "COS"), _maps),
    **dict.fromkeys(("DUP", "CPY", "CONT"), _copies),
    **dict.fromkeys(("MUL_MAT", "MUL_MAT_ID"), _multiplies),
    "GET_ROWS": _reads_rows,
    "SCALE": lambda _result, operands: operands[0] in ("f32", "bf16"),
    **dict.fromkeys(("CLAMP", "ROPE"), lambda _result, operands: operands[0] in ("f32", "f16")),
    "REPEAT": lambda _result, operands: operands[0] in _NUMBERS - {"f64", "i8"},
    **dict.fromkeys(
        (
            *("ADD_ID", "NORM", "RMS_NORM", "GROUP_NORM", "L2_NORM", "SUM_ROWS", "MEAN", "CUMSUM"),
            *("SSM_CONV", "SSM_SCAN", "RWKV_WKV6", "RWKV_WKV7", "GATED_LINEAR_ATTN", "GATED_DELTA_NET"),
            *("DSV4_HC_COMB", "DSV4_HC_PRE", "DSV4_HC_POST", "PAD", "ARGSORT", "TOP_K"),
        ),
        _reads_f32,
    ),
}
"""By ggml's name of an operation: the types that its CPU backend has code for."""


def check_operations(context: Context) -> None:
    """Raise InvalidRequestError if ggml cannot compute a batch of a context, or one token for each of its sequences.

    Does nothing where llama.cpp does not hand out its graph.
    """
    library = lib._lib  # noqa: SLF001 (the binding has no function for it)
    if ggml_version() not in VERSIONS or not hasattr(library, _MAKE_GRAPH):
        return
    make = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_uint32] * 3)((_MAKE_GRAPH, library))
    sequences = int(lib.llama_n_seq_max(context.pointer))
    # In llama.cpp's own order: the larger graph comes last, for which buffers are planned.
    for tokens in (sequences, max(context.batch_size, sequences)):
        graph = make(context.pointer, tokens, sequences, min(context.max_outputs, tokens))
        if graph and (reason := _impossible(graph)):
            raise InvalidRequestError(reason)


def check_projector(path: str) -> None:
    """Raise InvalidRequestError if a projector has norms or biases of a type with which ggml cannot compute.

    mtmd does not hand out its graph. It multiplies and adds these to floats of 32 bits.
    """
    for name, kind in ggml.read_tensor_types(path) or ():
        if kind != ggml.F32 and _ADDED_OR_MULTIPLIED.search(name):
            text = f"ggml cannot compute with the projector's tensor {name.decode('utf-8', 'replace')}"
            raise InvalidRequestError(f"{text}, which is of type {_type_name(kind)}")


def _impossible(graph: int) -> str:
    """Return which operation of a graph ggml has no code for; empty: none."""
    seen = set()
    for node in _nodes(graph):
        sources = [source for source in node.sources if source]
        types = (node.operation, node.type, *(ctypes.c_int.from_address(source).value for source in sources))
        # Most nodes of a layer are like those of the layer before.
        if types in seen:
            continue
        seen.add(types)
        rule = RULES.get(_operation_name(node.operation))
        operands = tuple(_type_of(source) for source in node.sources)
        if rule is None or rule(_type_name(node.type), operands) or _is_computed_elsewhere(node):
            continue
        kinds = " and ".join(each for each in operands if each)
        names = ", ".join(_tensor_name(source) for source in sources if _type_of(source) != "f32")
        operation = _operation_name(node.operation)
        return f"ggml cannot compute {operation} of {kinds}, as the types of this file's tensors want it ({names})"
    return ""


def _nodes(graph: int) -> Iterator[_Tensor]:
    count = _ggml("ggml_graph_n_nodes", ctypes.c_int, ctypes.c_void_p)(graph)
    addresses = _ggml("ggml_graph_nodes", ctypes.c_void_p, ctypes.c_void_p)(graph)
    for address in (ctypes.c_void_p * count).from_address(addresses):
        yield _Tensor.from_address(address)


def _is_computed_elsewhere(node: _Tensor) -> bool:
    """Return whether a device other than the CPU computes a node."""
    get = _ggml("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    type_of = _ggml("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    supports = _ggml("ggml_backend_dev_supports_op", ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)
    devices = map(get, range(_ggml("ggml_backend_dev_count", ctypes.c_size_t)()))
    return any(type_of(each) != _CPU_DEVICE and supports(each, ctypes.addressof(node)) for each in devices)


def _tensor_name(address: int) -> str:
    """Return the name of the tensor of the file of which another one is a view or a copy."""
    tensor = _Tensor.from_address(address)
    while _operation_name(tensor.operation) in ("RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "CONT"):
        tensor = _Tensor.from_address(tensor.sources[0])
    return bytes(tensor.name).decode("utf-8", "replace")


def _type_of(address: int | None) -> str:
    return _type_name(ctypes.c_int.from_address(address).value) if address else ""


@cache
def _type_name(number: int) -> str:
    return bytes(_ggml("ggml_type_name", ctypes.c_char_p, ctypes.c_int)(number)).decode()


@cache
def _operation_name(number: int) -> str:
    return bytes(_ggml("ggml_op_name", ctypes.c_char_p, ctypes.c_int)(number)).decode()


@cache
def _ggml(name: str, result: type, *arguments: type) -> Callable[..., Any]:
    # A prototype of its own, since the function objects of a library are shared.
    return ctypes.CFUNCTYPE(result, *arguments)((name, libggml))
