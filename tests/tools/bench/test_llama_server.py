"""Servers of one model file are driven by llama-server's API, beside others and by a URL."""

import shutil
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest
from tools.bench.__main__ import Given, able, entered, given
from tools.bench.answers import Outcome, Stream
from tools.bench.report import FIGURES
from tools.bench.scenarios import Scenario, chat, cold, lists, prefill, streams

MODELS = Path(__file__).parents[2] / "models"
COMMAND = f"{sys.executable} {Path(__file__).parent / 'fake_llama_server.py'} {{port}} {{model}}"


@pytest.fixture
async def server(tmp_path):
    shutil.copy(MODELS / "chatter.gguf", tmp_path / "135m.gguf")
    shutil.copy(MODELS / "embedder.gguf", tmp_path / "bert.gguf")
    async with entered("fake", f"A=b {COMMAND}", tmp_path / "fake", secured=False) as started:
        for model in ("135m", "bert"):
            await started.create(model, tmp_path / f"{model}.gguf")
        yield started


async def test_its_tokens_and_texts_are_counted(server):
    assert await server.version() == "b1"
    assert server.start_seconds > 0
    eight = await streams(server, "135m", 1, count=8, tokens=5)
    assert [stream.tokens for stream in eight.streams] == [5] * 8
    assert eight.streams[0].text == " fox" * 5
    assert len(eight.streams[0].arrivals) == 6
    assert [stream.tokens for stream in (await chat(server, "135m", 1)).streams] == [64] * 3
    assert (await lists(server, "bert", 1)).inputs == 128
    prompt = (await prefill(server, "135m", 1, words=30)).streams[0]
    assert prompt.prompt_tokens > 30
    assert len(server.pids) == 2


async def test_a_model_leaves_with_its_process(server):
    await server.version()
    [first] = server.pids
    await cold(server, "135m", 1)
    [second] = server.pids
    assert first != second


async def test_a_server_that_already_runs_is_asked_for_its_own_model_alone(server):
    await server.version()
    url = server.processes["135m"].url
    async with entered("far", url, Path("unused"), secured=False) as far:
        assert [stream.tokens for stream in (await streams(far, "135m", 1, count=2, tokens=3)).streams] == [3, 3]
        everywhere = {"fake": Given("", frozenset()), "far": Given("", frozenset())}
        assert able(scenario("135m"), [server, far], everywhere) == [server, far]
        assert able(scenario("135m", unloads=True), [server, far], everywhere) == [server]
        assert able(scenario("bert"), [server, far], everywhere) == [server]
        assert able(scenario("135m"), [server, far], everywhere | {"far": Given("", frozenset({"x"}))}) == [server]


def scenario(model, **settings):
    return Scenario("one", model, partial(streams, count=1, tokens=1), (), **settings)


def test_the_command_line_names_servers_and_their_scenarios():
    told = Namespace(server=["puna=A=b puna serve", "drafts[agent, eight Q4_K]=x {model}"], ggml=["puna"])
    assert given(told) == {
        "puna": Given("A=b puna serve", frozenset()),
        "puna-ggml": Given("PUNA_KERNELS=0 A=b puna serve", frozenset()),
        "drafts": Given("x {model}", frozenset({"agent", "eight Q4_K"})),
    }


def test_a_prompt_is_measured_up_to_the_first_token():
    known = Stream(10.0, [12.0, 13.0], 2, prompt_tokens=100)
    assert FIGURES["prompt/s"](Outcome(3.0, [known])) == 50
    assert FIGURES["prompt/s"](Outcome(3.0, [known, Stream(0.0, [1.0])])) is None
