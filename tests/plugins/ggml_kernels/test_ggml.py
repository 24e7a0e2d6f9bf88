"""ggml through ctypes, against plain arithmetic."""

import struct

import numpy as np
import pytest

from puna_ggml_kernels import ggml


def test_all_functions_that_the_kernels_need_are_found():
    functions, missing = ggml.own_functions()
    assert missing == []
    assert all(getattr(functions, name) for name in ggml.FUNCTIONS)


def test_a_function_that_is_not_exported_is_named(monkeypatch):
    monkeypatch.setattr(ggml, "FUNCTIONS", ggml.FUNCTIONS | {"sgemm": "ggml_none"})
    functions, missing = ggml.own_functions()
    assert missing == ["ggml_none"]
    assert functions.sgemm is None
    with pytest.raises(AttributeError, match="ggml_none"):
        ggml.function("ggml_none", None)


def test_instruction_sets_of_other_processors_are_missing(monkeypatch):
    monkeypatch.setattr(ggml, "INSTRUCTIONS", ("fma", "neon", "sve"))
    assert ggml.missing_instructions() == ["neon", "sve"]


def test_a_product_has_the_shape_and_the_values_of_numpys():
    left, right = np.arange(6 * 32, dtype=np.float32).reshape(6, 32) / 64, np.ones((3, 32), np.float32)
    with ggml.Graph(1 << 20) as graph:
        matrix = graph.tensor(ggml.F32, (32, 6), left.tobytes())
        product = graph.compute(graph.multiply(matrix, graph.tensor(ggml.F32, (32, 3), right.tobytes())))
    assert np.allclose(np.frombuffer(product, np.float32).reshape(3, 6), right @ left.T)


def test_attention_to_one_visible_position_is_its_value():
    size, positions = 64, 3
    values = [float(i % 7) for i in range(positions * size)]
    mask = [-float("inf"), 0.0, -float("inf")] * 64
    with ggml.Graph(1 << 20) as graph:
        query = graph.tensor(ggml.F32, (size, 1, 1), struct.pack(f"{size}f", *[1.0] * size))
        key_value = struct.pack(f"{len(values)}e", *values)
        key, value = (graph.tensor(ggml.F16, (size, positions), key_value) for _ in range(2))
        visible = graph.tensor(ggml.F16, (positions, 64), struct.pack(f"{len(mask)}e", *mask))
        result = struct.unpack(f"{size}f", graph.compute(graph.attention(query, key, value, visible, 1.0)))
    assert list(result) == values[size : 2 * size]
