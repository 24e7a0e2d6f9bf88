"""The ctransformers backend: older GGUF models of the llama family. See README.md."""

from puna_ctransformers.backend import CTransformersBackend

__all__ = ["CTransformersBackend"]
