"""The comparison with ggml's own functions that each process makes."""

import pytest

from puna_ggml_kernels import loader
from puna_ggml_kernels.self_check import differences

pytestmark = pytest.mark.kernels


def test_the_kernels_pass(library):
    assert differences(library) == []


def test_other_orders_of_additions_are_found(library):
    loader.set_order(tiled_from=1)
    try:
        assert differences(library) == ["attention in decoding (other bits)"]
    finally:
        loader.set_order(tiled_from=loader.TILED_PREFILL_ROWS)


class NeverOn:
    """Kernels that ggml does not call, as if its names were bound within its library."""

    def __init__(self, library):
        self.puna_matmul_calls = library.puna_matmul_calls
        self.puna_attention_calls = library.puna_attention_calls
        self._library = library

    def puna_enable(self, on):
        self._library.puna_enable(False)


def test_kernels_that_are_never_called_are_found(library):
    try:
        found = differences(NeverOn(library))
        assert len(found) == 5
        assert all("ggml does not call it" in each for each in found)
    finally:
        library.puna_enable(True)
