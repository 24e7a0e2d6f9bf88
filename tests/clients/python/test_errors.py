"""The details of errors."""

import os

import pytest

import puna_client
from conftest import EXACT, secure
from puna_client.v1.message_pb2 import Tool
from puna_client.v1.options_pb2 import RequestOptions, SamplingOptions


async def test_an_unknown_model(client):
    with pytest.raises(puna_client.ModelNotFoundError) as caught:
        await client.chat("nowhere", "Hi").result()
    assert isinstance(caught.value, puna_client.NotFoundError)
    assert (caught.value.reason, caught.value.metadata["model"]) == ("MODEL_NOT_FOUND", "nowhere")


async def test_a_long_prompt(client):
    with pytest.raises(puna_client.ContextOverflowError) as caught:
        await client.chat("llamita", "llama " * 5000).result()
    assert int(caught.value.metadata["prompt_tokens"]) > int(caught.value.metadata["context_length"])


async def test_a_field_out_of_range(client):
    options = RequestOptions(sampling=SamplingOptions(temperature=-5))
    with pytest.raises(puna_client.InvalidRequestError) as caught:
        await client.chat("llamita", "Hi", options=options).result()
    assert caught.value.field == "options.sampling.temperature"


async def test_broken_json(client):
    with pytest.raises(puna_client.InvalidRequestError) as caught:
        await client.chat("llamita", "Hi", tools=[Tool(name="broken", parameters_json="{")]).result()
    assert caught.value.field.endswith("parameters_json")


async def test_a_limit_says_when_to_come_back():
    async with secure(os.environ["PUNA_LIMITED_API_KEY"]) as client:
        await client.chat("llamita", "Hi", options=EXACT).result()
        with pytest.raises(puna_client.RateLimitedError) as caught:
            await client.chat("llamita", "Hi", options=EXACT).result()
    assert 0 < caught.value.retry_delay <= 60
