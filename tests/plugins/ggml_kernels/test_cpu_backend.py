import ctypes

import pytest

from puna_ggml_kernels import cpu_backend


def test_the_library_has_the_functions_of_the_cpu_backend():
    """Which library that is depends on how llama.cpp was built; `make test-wheel` tries the other way."""
    library = cpu_backend.load_cpu_backend()
    assert ctypes.CFUNCTYPE(ctypes.c_int)(("ggml_cpu_has_sse3", library))() in (0, 1)


def test_without_a_backend_for_the_processor_loading_says_so(monkeypatch):
    monkeypatch.setattr(cpu_backend, "_FUNCTION", "no_such_function")
    with pytest.raises(cpu_backend.NoCpuBackendError, match="llama_cpp/lib fits this processor"):
        cpu_backend.load_cpu_backend.__wrapped__()
