"""Evaluating a batch and drawing the next tokens in one call, where the kernels are installed.

See native/step.c of puna_ggml_kernels: while no batch is evaluated all threads wait, and a call from Python costs more
than the work that it does.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Final

import llama_cpp.llama_cpp as lib

from puna_ggml_kernels.loader import step_function
from puna_llama_cpp.binding.batch import Batch, VectorBatch

NO_TOKEN: Final = -1
"""The token of a draw that has not been made."""


class Draw(ctypes.Structure):
    """The struct draw of native/step.c: a token to draw from a row of logits."""

    _fields_ = (
        ("next", ctypes.c_void_p),
        ("chain", ctypes.c_void_p),
        ("candidates", ctypes.c_void_p),
        ("room", ctypes.c_int32),
        ("vocabulary", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("group", ctypes.c_int32),
        ("row", ctypes.c_int32),
        ("token", ctypes.c_int32),
    )


class _Order(ctypes.Structure):
    """The struct order of native/step.c."""

    _fields_ = (
        ("tiled_from", ctypes.c_int32),
        ("batch_invariant", ctypes.c_int32),
        ("prompts_count", ctypes.c_int32),
        ("prompts", ctypes.c_void_p),
    )


class _Functions(ctypes.Structure):
    """The struct llama_functions of native/step.c."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("decode", "logits", "sample", "apply", "accept"))


class NativeStep:
    """Calls of one context, one at a time."""

    def __init__(self, function: Callable[..., int]) -> None:
        """`function` is puna_step of native/step.c."""
        self._function = function
        drawing = lib.llama_sampler_sample, lib.llama_sampler_apply, lib.llama_sampler_accept
        each = (lib.llama_decode, lib.llama_get_logits_ith, *drawing)
        self._llama = _Functions(*(ctypes.cast(function, ctypes.c_void_p) for function in each))
        self._order = _Order()
        self._addresses = ctypes.addressof(self._llama), ctypes.addressof(self._order)

    def __call__(
        self,
        context: int,
        batch: Batch | VectorBatch,
        draws: int,
        *,
        tiled_from: int,
        invariant_sequences: int,
        prompts: Sequence[int] | None,
    ) -> int:
        """Evaluate a batch and make the draws that begin at an address. Return the status of llama_decode.

        The other arguments are those of `puna_ggml_kernels.loader.set_order`.
        """
        order = self._order
        order.tiled_from, order.batch_invariant = tiled_from, invariant_sequences
        slots = (ctypes.c_int32 * len(prompts))(*prompts) if prompts else None
        order.prompts_count = -1 if prompts is None else len(prompts)
        order.prompts = None if slots is None else ctypes.addressof(slots)
        llama, at = self._addresses
        return self._function(llama, context, batch.address, at, draws)


def native_step() -> NativeStep | None:
    """Return the calls of a new context; None: the kernels are not installed."""
    function = step_function()
    return NativeStep(function) if function is not None else None
