"""Imports what takes long, once, in the process from which the others are forked."""

from puna_ggml_kernels import loader

loader.install()

# Behind the kernels, since it loads llama.cpp.
import tools.soak.caches.worker  # noqa: E402, F401

import puna_llama_cpp.loading  # noqa: E402, F401
