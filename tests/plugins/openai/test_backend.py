"""The configuration, and the models that upstreams list."""

import logging

import pytest
from tests.plugins.openai.front import KEY, serving

from puna.backend import BackendError, ModelSpec, UpstreamModel


def spec(upstream, upstreams):
    return ModelSpec(path="", upstream=upstream, backend_options={"upstreams": upstreams})


SOUND = {"base_url": "http://127.0.0.1:1/v1"}


async def test_loading_asks_nobody(backend):
    model = await backend.load(spec("a/org/m", {"a": SOUND | {"context_length": 77}}), lambda fraction: None)
    assert model.facts.context_length == 77
    assert not model.facts.tokenizer


async def test_models_have_the_name_of_their_upstream(backend, front):
    upstream = {"base_url": front.url, "models": ["a", "org/*"], "capabilities": ["tools"], "context_length": 9}
    assert await backend.models({"upstreams": {"one": upstream}}) == [
        UpstreamModel(name="one/a", capabilities=("completion", "tools"), context_length=9),
        UpstreamModel(name="one/org/b:7b", capabilities=("completion", "tools"), context_length=9),
    ]


async def test_an_upstream_that_is_down_hides_no_other_and_is_logged_once(backend, front, caplog, unused_tcp_port):
    caplog.set_level(logging.INFO)
    options = {
        "upstreams": {
            "up": {"base_url": front.url, "models": ["a"]},
            "down": {"base_url": f"http://127.0.0.1:{unused_tcp_port}/v1", "api_key": KEY},
            "hidden": {"base_url": front.url, "lists": False},
        }
    }
    for _ in range(3):
        assert [each.name for each in await backend.models(options)] == ["up/a"]
    [line] = [record.getMessage() for record in caplog.records if record.name == "puna_openai.backend"]
    assert "'down' cannot be reached" in line
    assert KEY not in line


async def test_the_models_of_an_upstream_that_went_down_stay_listed(backend, front, caplog):
    options = {"upstreams": {"up": {"base_url": front.url, "models": ["a"]}}}
    before = await backend.models(options)
    front.models_status = 500
    assert await backend.models(options) == before
    front.models_status, front.models = 200, {"data": []}
    assert await backend.models(options) == []
    assert [record.levelname for record in caplog.records if record.name == "puna_openai.backend"] == ["WARNING"]


@pytest.mark.parametrize("answer", [[], {"data": "x"}, {}, "no", {"data": [{"id": "x"}] * 10_001}])
async def test_nonsense_in_place_of_a_list(backend, front, answer):
    front.models = answer
    with pytest.raises(BackendError, match="upstream 'up' sent an answer that cannot be read: it is no list of models"):
        await backend.models({"upstreams": {"up": {"base_url": front.url}}})


async def test_names_that_no_list_could_show_are_left_out(backend, front):
    front.models = {"data": [{"id": "good"}, {"id": "line\nbreak"}, {"id": "x" * 201}, {"id": 5}, {}, "x"]}
    found = await backend.models({"upstreams": {"up": {"base_url": front.url}}})
    assert [each.name for each in found] == ["up/good"]


async def test_two_upstreams_of_one_name_do_not_share_a_connection(backend, front, load, run, ask):
    async with serving() as other:
        for url in (front.url, other.url):
            await run(await load("hello", base_url=url), ask())
        assert (len(front.requests), len(other.requests)) == (1, 1)
