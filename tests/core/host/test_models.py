import asyncio

import pytest

from puna.host.models import Models


class Model:
    def __init__(self, error=None):
        self.closed = asyncio.Event()
        self.error = error

    async def aclose(self):
        self.closed.set()
        if self.error is not None:
            raise self.error


async def test_a_model_is_freed_when_none_of_its_calls_runs():
    models, model = Models(), Model()
    models.add("a", model)
    with models.use("a") as used:
        assert used is model
        freeing = asyncio.create_task(models.free("a"))
        await asyncio.sleep(0.02)
        assert not model.closed.is_set()
        # No further call finds it.
        with pytest.raises(LookupError, match="no model is loaded"), models.use("a"):
            pass
    await asyncio.wait_for(freeing, 5)
    assert model.closed.is_set()


async def test_a_call_that_does_not_end_keeps_a_model_only_for_a_while():
    models, model = Models(), Model()
    models.add("a", model)
    with models.use("a"):
        await asyncio.wait_for(models.free("a", within=0.02), 5)
    assert model.closed.is_set()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_whatever_a_model_raises_at_its_end_keeps_no_other(error):
    models, other = Models(), Model()
    models.add("a", Model(error))
    models.add("b", other)
    await models.free_all()
    assert other.closed.is_set()
    assert not models


def test_the_only_model_is_one_of_one():
    models = Models()
    assert models.only is None
    models.add("a", one := object())
    assert models.only is one
    models.add("b", object())
    assert models.only is None


def test_the_log_names_the_models_of_a_shared_host():
    models = Models()
    models.add("7", Model(), "gpu1/qwen3:latest")
    models.add("", Model(), "alone:latest")
    assert (models.owner("7"), models.owner(""), models.owner("8")) == (" of gpu1/qwen3:latest", "", "")
