"""The OpenAI backend: models at upstreams that speak OpenAI's API. See README.md."""

from puna_openai.backend import OpenAIBackend

__all__ = ["OpenAIBackend"]
