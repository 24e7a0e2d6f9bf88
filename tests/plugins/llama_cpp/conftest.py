from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from puna.backend import Finish, ModelSpec, Sampling, SequenceRequest, TextDelta
from puna_ggml_kernels import ggml
from puna_llama_cpp import LlamaCppBackend

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def recorded_bits():
    """Whether ggml's sums have the bits that they had for Ollama when its answers were recorded: with AVX-512."""
    return not ggml.missing_instructions()


@pytest.fixture
async def load():
    """Load a model of tests/models for the length of a test. It has one thread, since the machine may be busy."""
    async with AsyncExitStack() as open_models:

        async def load(name="chatter", **spec):
            spec = {"path": str(MODELS / f"{name}.gguf"), "threads": 1, **spec}
            model = await LlamaCppBackend().load(ModelSpec(**spec), lambda done: None)
            open_models.push_async_callback(model.aclose)
            return model

        yield load


@pytest.fixture
def write():
    """Have a model generate, and return the texts of its deltas and its Finish."""

    async def write(model, prompt, **request):
        request = {"sampling": Sampling(temperature=0), "max_tokens": 40, **request}
        events = [event async for event in model.generate(SequenceRequest(prompt=prompt, **request))]
        assert isinstance(events[-1], Finish)
        return [event.text for event in events if isinstance(event, TextDelta)], events[-1]

    return write


@pytest.fixture
def parts():
    """Open the parts of a model of tests/models, without its threads, for the length of a test."""
    opened = []

    def parts(name="chatter", **spec):
        from puna_llama_cpp.loading import open_model

        spec = {"path": str(MODELS / f"{name}.gguf"), "threads": 1, "parallel": 4, **spec}
        opened.append(open_model(ModelSpec(**spec), lambda done: None, lambda: False))
        return opened[-1]

    yield parts
    for each in opened:
        each.close()
