"""The llama.cpp backend, over llama-cpp-python's low-level API. See README.md."""

from puna_llama_cpp.backend import LlamaCppBackend

__all__ = ["LlamaCppBackend"]
