"""Models in the test's own process, behind the seam that `ModelPool` has for it: its parameter `load`.

A host process takes a third of a second to start. Tests of what lies above the pool need none. Errors are translated as
a host's are.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from puna.backend import Backend, BackendError
from puna.errors import BackendFailedError, LoadFailedError, OutOfMemoryError
from puna.runtime.hosted_model import HostedModel


def translated(error):
    return error if isinstance(error, BackendError) else BackendFailedError(str(error) or type(error).__name__)


async def answered(call):
    try:
        return await call
    except Exception as error:
        raise translated(error) from error


class ModelHere(HostedModel):
    """A model of a backend, without a process."""

    pid = 0

    def __init__(self, model):
        self._model = model

    @property
    def facts(self):
        return self._model.facts

    async def generate(self, request, /) -> AsyncGenerator:
        try:
            async with aclosing(self._model.generate(request)) as events:
                async for event in events:
                    yield event
        except Exception as error:
            raise translated(error) from error

    async def tokenize(self, text, /, *, add_special, parse_special):
        return await answered(self._model.tokenize(text, add_special=add_special, parse_special=parse_special))

    async def detokenize(self, tokens, /, *, special):
        return await answered(self._model.detokenize(tokens, special=special))

    async def embed(self, inputs, /, *, raw=False):
        return await answered(self._model.embed(inputs, raw=raw))

    async def rerank(self, query, documents, /):
        return await answered(self._model.rerank(query, documents))

    async def aclose(self):
        await self._model.aclose()


def loading(backend: Backend):
    """Return what a pool takes as `load`: it loads every model with this backend."""

    async def load(plugin, spec, *, report, **timeouts):
        try:
            return ModelHere(await backend.load(spec, report))
        except MemoryError as error:
            raise OutOfMemoryError(f"unable to load model: {error}") from error
        except Exception as error:
            raise LoadFailedError(f"unable to load model: {error}") from error

    return load
