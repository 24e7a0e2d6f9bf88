"""Before any test module imports llama.cpp: its kernels come first, as in the host process of a model."""

from puna_llama_cpp import kernels

kernels.install()
