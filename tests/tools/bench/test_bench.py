"""The benchmark on small models: what it counts is there, and it knows a wrong answer. No figure is judged."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import aiohttp
import gguf
import pytest
from aiohttp import web
from tools.bench.agent import CHAIN, OPENERS, WANDER
from tools.bench.answers import Outcome, Stream
from tools.bench.report import row
from tools.bench.scenarios import copying
from tools.bench.servers import Server
from tools.bench.work import CYCLE
from tools.make_bench_models import Llama, cycle, llama

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "tests/models"


def run(*arguments):
    told = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def test_servers_are_driven_beside_the_bare_loop(tmp_path):
    shutil.copy(MODELS / "chatter.gguf", tmp_path / "135m.gguf")
    shutil.copy(MODELS / "embedder.gguf", tmp_path / "bert.gguf")
    server = f"puna={sys.executable} -m puna serve"
    told = run(
        *("tools.bench", "--server", server, "--models", str(tmp_path)),
        *("--rounds", "1", "--raw", "--only", "cold,one warm,embed short beside long", "--ggml", "puna"),
        *("--page", str(tmp_path / "page")),
    )
    figures = [line.split() for line in told.splitlines() if line.startswith("  tokens/s")]
    [[_, puna, ggml, raw, *_]] = figures
    assert all(float(each) > 0 for each in (puna, ggml, raw))
    assert "  of memory" in told
    assert "none counted" not in told
    assert "embed short beside long" in told
    [page] = (tmp_path / "page").glob("*/README.md")
    assert f"| one warm | tokens/s | {puna} | {ggml} | {raw} |" in page.read_text()
    assert "- puna: `" in page.read_text()
    assert str(Path(sys.executable).parent) not in page.read_text()
    assert (page.parent / "throughput.svg").exists()


def test_the_copier_says_its_words_in_turn(tmp_path):
    path = tmp_path / "copier.gguf"
    llama(path, Llama(1, 64, 128, 4, 4, 1200), gguf.GGMLQuantizationType.F32, 0, follows=cycle())
    command = ("tools.bench.raw", str(path), "--json", "--tokens", "250", "--prompt", f" {CYCLE[6]} {CYCLE[7]}")
    answer = json.loads(run(*command))
    assert answer["text"].split() == [CYCLE[(8 + i) % len(CYCLE)] for i in range(250)]
    assert len(answer["arrivals"]) == 250


def test_the_agent_says_words_that_may_follow_each_other(tmp_path):
    path = tmp_path / "agent.gguf"
    llama(path, Llama(1, 256, 256, 4, 4, 4096), gguf.GGMLQuantizationType.F32, 0, follows=CHAIN)
    command = ("tools.bench.raw", str(path), "--json", "--tokens", "60", "--prompt")
    for first in (OPENERS[2], next(iter(WANDER))):
        words = json.loads(run(*command, f" {first}"))["text"].split()
        assert len(words) == 60
        assert all(right in CHAIN[left] for left, right in itertools.pairwise([first, *words]))


async def copy_of(text):
    """Ask a server that always says `text` for the copy of turn 0."""

    async def answer(request):
        return web.Response(text=json.dumps({"response": text, "done": True}, separators=(",", ":")) + "\n")

    application = web.Application()
    application.router.add_post("/api/generate", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        try:
            return await copying(Server("fake", f"http://127.0.0.1:{port}", "", 0, 0.0, session), "m", 0)
        finally:
            await runner.cleanup()


async def test_a_right_copy_counts():
    right = "".join(f" {CYCLE[i % 200]}" for i in range(256))
    assert (await copy_of(right)).streams[0].text == right


async def test_a_wrong_copy_is_an_error():
    with pytest.raises(RuntimeError, match="fake wrote ' no' instead of"):
        await copy_of(" no")


def outcome(*tokens):
    return Outcome(2.0, [Stream(0.0, [0.5 + i for i in range(count or 3)], count) for count in tokens])


def test_what_was_not_counted_is_said():
    line = row("tokens/s", {"a": [outcome(4, 4)] * 2, "b": [outcome(4, 0)] * 2})
    assert line.split() == ["tokens/s", "4", "none", "counted", "a/b", "cannot", "be", "told"]


def test_rounds_that_were_not_counted_are_said():
    line = row("tokens/s", {"a": [outcome(4), outcome(4)], "b": [outcome(0), outcome(8)]})
    assert line.split()[:4] == ["tokens/s", "2", "4", "(1/2)"]
    assert line.endswith("a/b 0.50 (0.50 to 0.50)")


def test_decoding_leaves_the_prompt_out():
    assert row("decoding/s", {"a": [outcome(5)]}).split() == ["decoding/s", "1"]
    assert "none counted" in row("decoding/s", {"a": [outcome(0)]})


def test_an_answer_without_a_token_has_no_figures():
    silent = {"a": [Outcome(1.0, [Stream(0.0)])]}
    assert all("none counted" in row(figure, silent) for figure in ("first", "gap p50", "gap p99/p50", "inputs/s"))
