"""Before any test module imports llama.cpp: its kernels come first, as in the host process of a model."""

from puna_ggml_kernels import loader

loader.install()
