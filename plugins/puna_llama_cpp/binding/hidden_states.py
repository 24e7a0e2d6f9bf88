"""Hidden states that a model hands to its head, and a head to itself.

A head predicts the next token from the embedding of the newest token and from hidden states of the token before it:
what the last layer made of it (MTP), or what three layers were given (EAGLE-3). llama.cpp computes these states where
it is asked to, and returns them by functions of an internal header. They are C++ functions with plain arguments, called
under their mangled names. Their meaning may change with llama.cpp, so they are called only in versions of ggml that
were tried.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from puna.backend import BackendError
from puna_llama_cpp.binding.batch import VectorBatch
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.lazy_memory import VERSIONS, ggml_version
from puna_llama_cpp.binding.native_log import captured_log
from puna_llama_cpp.binding.turns import TURNS
from puna_llama_cpp.binding.weights import Weights

_REQUEST = "_Z26llama_set_embeddings_nextnP13llama_contextbb"
_ALL = "_Z26llama_get_embeddings_nextnP13llama_context"
_ONE = "_Z30llama_get_embeddings_nextn_ithP13llama_contexti"
_REQUEST_LAYER = "_Z30llama_set_embeddings_layer_inpP13llama_contextjb"
_LAYER = "_Z30llama_get_embeddings_layer_inpP13llama_contextj"
_LAYERS = "_Z28llama_model_target_layer_idsPK11llama_model"
_LAYER_COUNT = "_Z30llama_model_target_layer_ids_nPK11llama_model"


@cache
def available() -> bool:
    """Return whether this build of llama.cpp has the functions, with the meaning that is known."""
    names = _REQUEST, _ALL, _ONE, _REQUEST_LAYER, _LAYER, _LAYERS, _LAYER_COUNT
    known = sys.platform.startswith("linux") and ggml_version() in VERSIONS
    return known and all(hasattr(lib._lib, name) for name in names)  # noqa: SLF001 (the binding has some of them only)


def layers_read(model: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Return the layers of its target that a head reads; the number of layers stands for what the last one makes."""
    count = _function(_LAYER_COUNT, ctypes.c_uint32, ctypes.c_void_p)(_address(model))
    layers = _function(_LAYERS, ctypes.POINTER(ctypes.c_int32), ctypes.c_void_p)(_address(model))
    return tuple(layers[number] for number in range(count))


class ModelStates:
    """The hidden states that a model's context computes for a head, from the next batch on."""

    def __init__(self, context: Context, weights: Weights, layers: Sequence[int] = ()) -> None:
        """Request what these layers are given; one behind the last, or none: what the last one makes.

        llama.cpp ends the process for architectures that cannot (`architectures.GIVES_LAYERS`).
        """
        self._context, self._width = context, weights.embedding_length
        self._layers = [layer if layer < weights.layers else None for layer in layers] or [None]
        for layer in {*self._layers}:
            if layer is None:
                _request(context, outputs_only=False)
            else:
                request = _function(_REQUEST_LAYER, None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_bool)
                request(_address(context.pointer), layer, True)

    def rows(self, start: int, end: int) -> NDArray[np.float32]:
        """Return the states of the rows from `start` to `end` of the last batch, those of several layers side by side.

        The result may be a view that the next batch invalidates.
        """
        found = [self._layer(layer, end)[start:] for layer in self._layers]
        return found[0] if len(found) == 1 else np.hstack(found)

    def _layer(self, layer: int | None, count: int) -> NDArray[np.float32]:
        if layer is None:
            return _of_all(self._context, count, self._width)
        function = _function(_LAYER, ctypes.POINTER(ctypes.c_float), ctypes.c_void_p, ctypes.c_uint32)
        return np.ctypeslib.as_array(function(_address(self._context.pointer), layer), (count, self._width))


class HeadStates:
    """The hidden states that a head makes itself."""

    def __init__(self, context: Context, weights: Weights) -> None:
        """Request those of tokens with logits."""
        self._context, self.width = context, weights.embedding_length
        _request(context, outputs_only=True)

    def of_output(self, row: int) -> NDArray[np.float32]:
        """Return the state of a token with logits, by its row in the last batch: a view that the next invalidates."""
        function = _function(_ONE, ctypes.POINTER(ctypes.c_float), ctypes.c_void_p, ctypes.c_int32)
        return np.ctypeslib.as_array(function(_address(self._context.pointer), row), (self.width,))

    def fuse(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Have the encoder of a head make one state of those of several layers, for each token.

        Raises BackendError if llama.cpp failed.
        """
        size, found = self._context.batch_size, []
        for done in range(0, len(states), size):
            part = states[done : done + size]
            # The encoder needs no positions, but llama.cpp checks them against those of the sequence.
            first = int(lib.llama_memory_seq_pos_max(lib.llama_get_memory(self._context.pointer), 0)) + 1
            positions = np.arange(first, first + len(part), dtype=np.int32)
            batch = VectorBatch(0, part, positions, output=True, outputs_all=True)
            with TURNS:
                status = int(lib.llama_encode(self._context.pointer, batch.native))
            if status != 0:
                raise BackendError(captured_log().last_error() or f"llama_encode failed with status {status}")
            found.append(_of_all(self._context, len(part), self.width).copy())
        return np.vstack(found)


def _request(context: Context, *, outputs_only: bool) -> None:
    request = _function(_REQUEST, None, ctypes.c_void_p, ctypes.c_bool, ctypes.c_bool)
    request(_address(context.pointer), True, outputs_only)


def _of_all(context: Context, count: int, width: int) -> NDArray[np.float32]:
    function = _function(_ALL, ctypes.POINTER(ctypes.c_float), ctypes.c_void_p)
    return np.ctypeslib.as_array(function(_address(context.pointer)), (count, width))


def _address(context: Any) -> int | None:  # noqa: ANN401
    return ctypes.cast(context, ctypes.c_void_p).value


@cache
def _function(name: str, result: Any, *arguments: type) -> Callable[..., Any]:  # noqa: ANN401 (a ctypes type)
    function = getattr(lib._lib, name)  # noqa: SLF001
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]
