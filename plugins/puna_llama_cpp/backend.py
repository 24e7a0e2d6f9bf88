"""The backend as the core sees it: cheap to import, since llama.cpp is loaded with the first model."""

from collections.abc import Callable

from puna.backend import Backend, LoadedModel, ModelSpec


class LlamaCppBackend(Backend):
    """Serves GGUF models with llama.cpp."""

    preference = 100

    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Load weights and make a context."""
        raise NotImplementedError
