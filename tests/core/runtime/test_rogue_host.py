"""A host that is not Puna's and breaks the protocol: the requests of that host fail, with a clear error."""

import asyncio
import sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from puna.backend import Finish, ModelSpec, SequenceRequest, TextDelta
from puna.errors import BackendCrashedError, BackendFailedError, LoadFailedError
from puna.limits import DEFAULT_LIMITS
from puna.plugins import Plugin, manifest
from puna.runtime.errors import ContractVersionError, HostFailedError
from puna.runtime.heartbeat import HangTimeouts
from puna.runtime.host_loading import HostLoader
from puna.runtime.local_launcher import LocalLauncher

ROGUE = Path(__file__).parent / "rogue_host.py"
DONE = [TextDelta("a"), Finish(reason="stop", output_tokens=1)]


@pytest.fixture
async def rogue(tmp_path, short_path):
    """Loads a model in a rogue host; it is closed at the end."""
    file = tmp_path / "backend.toml"
    file.write_text('contract = 1\nname = "rogue"\nformats = []\nhost.command = ["./rogue"]\n')
    models = []

    async def loaded(how, stall_seconds=20.0, report=lambda _: None):
        model = await HostLoader(LocalLauncher(lambda: short_path / "s")).load(
            Plugin(name="rogue", manifest=manifest.read(file), command=(sys.executable, str(ROGUE), how)),
            ModelSpec(path="", name="rogue:latest"),
            report=report,
            stall_seconds=stall_seconds,
            on_death=lambda: None,
            timeouts=HangTimeouts(silence=20.0, step=1.5),
            limits=replace(DEFAULT_LIMITS, max_host_message_bytes=1_000_000),
        )
        models.append(model)
        return model

    yield loaded
    for model in models:
        await model.aclose()


async def collect(model):
    async with asyncio.timeout(20), aclosing(model.generate(SequenceRequest(prompt="a"))) as events:
        return [event async for event in events]


@pytest.mark.parametrize("how", ["fine", "twice", "grpc_only", "prints"])
async def test_what_does_no_harm_is_tolerated(rogue, how):
    model = await rogue(how)
    assert [await collect(model) for _ in range(3)] == [DONE] * 3


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("garbage", "it sent a message that cannot be read"),
        ("endless", r"it sent a message of 4294967295 bytes, above 1000000 \(PUNA_MAX_HOST_MESSAGE_BYTES\)"),
        ("unknown_id", "it sent an event of a sequence that does not exist"),
        ("grpc_aborts", "its stream of events ended with UNKNOWN: no more"),
        ("grpc_huge", "its stream of events ended with RESOURCE_EXHAUSTED: .*larger than max"),
        ("half", "its work has made no step for 1.5 seconds"),
        ("silent", "its work has made no step for 1.5 seconds"),
    ],
)
async def test_a_broken_protocol_ends_the_host(rogue, how, text):
    model = await rogue(how)
    for _ in range(2):
        with pytest.raises(BackendCrashedError, match=text):
            await collect(model)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("no_kind", "an event of an unknown kind"),
        ("no_reason", "the backend failed without saying why"),
        ("strange_kind", "why"),
        ("negative", "the prompt_tokens of the Finish is -1"),
        ("chatty", "a ChatDelta where a TextDelta belongs"),
    ],
)
async def test_a_broken_event_ends_its_sequence(rogue, how, text):
    model = await rogue(how)
    for _ in range(2):
        with pytest.raises(BackendFailedError, match=text):
            await collect(model)


@pytest.mark.parametrize(
    ("how", "text"), [("half_vector", "a vector has a part of a number"), ("huge_answer", "larger than max")]
)
async def test_a_broken_answer_ends_its_call(rogue, how, text):
    model = await rogue(how)
    with pytest.raises(BackendFailedError, match=text):
        await model.embed(["a"])
    assert await collect(model) == DONE


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("embeds_text", "it answered a text to embed with another event"),
        ("embeds_half", "a vector has a part of a number"),
        ("embeds_none", "it counted -1 tokens"),
    ],
)
async def test_a_broken_vector_in_the_stream_fails_its_text(rogue, how, text):
    model = await rogue(how)
    for _ in range(2):
        with pytest.raises(BackendFailedError, match=text):
            await model.embed(["a"])


async def test_a_vector_is_no_event_of_text(rogue):
    model = await rogue("embeds_half")
    with pytest.raises(BackendFailedError, match="an event of an unknown kind"):
        await collect(model)


@pytest.mark.parametrize("how", ["fine", "forgetful"])
async def test_a_call_without_an_answer_ends_also_without_heartbeats(rogue, how):
    model = await rogue(how)
    await asyncio.sleep(2.0)  # at rest nothing is due
    async with asyncio.timeout(20):
        with pytest.raises(BackendCrashedError, match=r"no step for 1\.5 seconds"):
            await model.embed(["a"])


async def test_another_version_of_the_contract_is_refused(rogue):
    with pytest.raises(ContractVersionError, match="backend 'rogue' speaks version 7 of the plugin contract"):
        await rogue("version")


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("mute", HostFailedError, "timed out waiting for llama-server to start"),
        ("nothing", LoadFailedError, "the host did not say what it loaded"),
        ("bad_failure", LoadFailedError, "unable to load model: broken"),
        ("no_slots", LoadFailedError, "the model's parallel is 0"),
    ],
)
async def test_a_load_that_fails_says_why(rogue, how, kind, text):
    with pytest.raises(kind, match=text):
        await rogue(how, stall_seconds=1.5)


async def test_fractions_that_are_none_are_not_shown(rogue):
    fractions = []
    await rogue("fractions", report=fractions.append)
    assert fractions == [0.5]
