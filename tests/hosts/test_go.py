"""The example host in Go: the contract of every backend, and a server that serves it."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from puna.backend import Backend, InvalidRequestError, ModelSpec, Sampling, SequenceRequest
from puna.errors import LoadFailedError
from puna.plugins import Registry
from puna.runtime.pool import ModelPool
from puna.runtime.requirements import ModelRequirements
from puna.settings import Settings
from puna.testing import BackendContract, collect

TEXT = Path(__file__).parents[2] / "README.md"
"""A text of long paragraphs, with characters of several bytes."""


class ThroughHost(Backend):
    """Loads the model as the server does: in the program that the manifest names."""

    folder: Path

    async def load(self, spec, report, /):
        settings = Settings(plugins_folder=self.folder, plugins=("go_markov",))
        want = ModelRequirements(key="m", name="m", format="text", spec=spec)
        async with AsyncExitStack() as undo:
            pool = await undo.enter_async_context(ModelPool(Registry.discover(settings), settings))
            try:
                lease = await undo.enter_async_context(pool.lease(want))
            except LoadFailedError as error:
                raise InvalidRequestError(str(error)) from error
            lease.model.aclose = undo.pop_all().aclose
        return lease.model


@pytest.fixture(autouse=True)
def _built(plugins):
    ThroughHost.folder = plugins


class TestGo(BackendContract):
    backend_class = ThroughHost
    prompt = "The server "
    model_format = "text"
    sampling = (
        *("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty"),
        *("frequency_penalty", "seed", "logit_bias", "shift"),
    )

    def spec(self):
        return ModelSpec(path=str(TEXT), format="text", context_length=256, parallel=2)


async def test_its_own_option_reaches_the_host():
    """An order of one byte knows only which letters follow each other; eight bytes repeat pieces of the text."""

    async def text(**options):
        spec = ModelSpec(path=str(TEXT), format="text", context_length=256, backend_options=options)
        model = await ThroughHost().load(spec, lambda _: None)
        request = SequenceRequest(prompt="The server ", max_tokens=12, sampling=Sampling(temperature=0.0))
        answer = (await collect(model, request)).text
        await model.aclose()
        return answer

    assert await text(order=8) in TEXT.read_text()
    assert await text(order=1) not in TEXT.read_text()
