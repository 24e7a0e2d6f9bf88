"""The example host in Go: the contract of every backend, and a server that serves it."""

from pathlib import Path

import pytest

from puna.backend import ModelSpec, Sampling, SequenceRequest
from puna.plugins import Registry
from puna.runtime.pool import ModelPool
from puna.runtime.requirements import ModelRequirements
from puna.settings import Settings
from puna.testing import BackendContract, collect

TEXT = Path(__file__).parents[2] / "README.md"
"""A text of long paragraphs, with characters of several bytes."""


class TestGo(BackendContract):
    prompt = "The server "
    model_format = "text"

    @pytest.fixture(autouse=True)
    def _built(self, plugins):
        type(self).manifest = plugins / "go_markov/backend.toml"

    def spec(self):
        return ModelSpec(path=str(TEXT), format="text", context_length=256, parallel=2)


async def test_its_own_option_reaches_the_host(plugins):
    """An order of one byte knows only which letters follow each other; eight bytes repeat pieces of the text."""

    async def text(**options):
        settings = Settings(plugins_folder=plugins, plugins=("go_markov",), backend_options={"go_markov": options})
        spec = ModelSpec(path=str(TEXT), format="text", context_length=256)
        want = ModelRequirements(key="m", name="m", format="text", spec=spec)
        request = SequenceRequest(prompt="The server ", max_tokens=12, sampling=Sampling(temperature=0.0))
        async with ModelPool(Registry.discover(settings), settings) as pool, pool.lease(want) as lease:
            return (await collect(lease.model, request)).text

    assert await text(order=8) in TEXT.read_text()
    assert await text(order=1) not in TEXT.read_text()
