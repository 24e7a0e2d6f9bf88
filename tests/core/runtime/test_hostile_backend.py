"""A backend that breaks the contract in every way, in a real host process: each call ends, with a clear error."""

import asyncio
import logging
import os
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from puna.backend import DocumentScores, InvalidRequestError, ModelSpec, SequenceRequest, TextDelta
from puna.errors import BackendCrashedError, BackendFailedError, LoadFailedError, OutOfMemoryError
from puna.host.channel import LONGEST_ERROR
from puna.limits import DEFAULT_LIMITS, Limits
from puna.plugins import Registry
from puna.runtime.errors import HostFailedError
from puna.runtime.heartbeat import NO_TIMEOUTS, HangTimeouts
from puna.runtime.host_loading import HostLoader
from puna.runtime.local_launcher import LocalLauncher

HOSTILE = Path(__file__).parents[2] / "plugins" / "hostile"
SECRET = "the-words-of-the-prompt"

RAISED = {
    "cancelled": "CancelledError",
    "generator_exit": "GeneratorExit",
    "interrupt": "KeyboardInterrupt",
    "exit": "SystemExit: 3",
    "key": "KeyError: 'size'",
    "own": "Own",
    "group": r"two at once \(2 sub-exceptions\)",
    "str_raises": "without a readable text",
    "str_number": "without a readable text",
    "str_sly": "sly",
    "str_long": "éé",
    "str_surrogate": "half \ufffd",
    "numberless": "how long, nobody knows",
    "disguised": "DisguisedError",
    "deep": "recursion",
    "stop": "StopIteration",
    "stop_async": "StopAsyncIteration",
    "memory": "MemoryError",
    "quote": SECRET,
}
"""What the plugin raises, and what the client reads."""

BROKEN = {
    "gen_none": "generate must be an async generator, and it returned a NoneType",
    "gen_coroutine": "generate must be an async generator, and it returned a coroutine",
    "gen_raises_at_once": "KeyboardInterrupt",
    "gen_cancels_itself": "CancelledError",
    "gen_surrogate": "lone surrogate, which is not valid Unicode",
    "gen_no_text": "a TextDelta that the contract does not allow",
    "gen_bytes": "a TextDelta that the contract does not allow",
    "gen_no_event": "a str that the contract does not allow: it is no event",
    "gen_reason": "a Finish that the contract does not allow: its reason is neither",
    "gen_negative": "the output_tokens of the Finish is -3",
    "gen_too_many": "a Finish that the contract does not allow",
    "gen_late_prefill": "it reported the prefill after text",
    "gen_nan": "the log-probability of a token is nan",
    "gen_nan_top": "the log-probability of a token is -inf",
    "gen_bad_id": "the id of a token is -7",
    "gen_strange_stop": "names a stop string that the request does not have",
}


@pytest.fixture
async def hostile(monkeypatch, short_path):
    """Loads the hostile backend; its models are closed at the end."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HOSTILE), os.environ.get("PYTHONPATH")])))
    monkeypatch.syspath_prepend(HOSTILE)
    plugin, models = Registry.discover().get("hostile"), []

    async def loaded(timeouts=NO_TIMEOUTS, stall_seconds=30.0, report=lambda _: None, limits=DEFAULT_LIMITS, **options):
        spec = ModelSpec(path="/m", name="evil:latest", backend_options=options)
        model = await HostLoader(LocalLauncher(lambda: short_path / str(len(models)))).load(
            plugin,
            spec,
            report=report,
            stall_seconds=stall_seconds,
            on_death=lambda: None,
            timeouts=timeouts,
            limits=limits,
        )
        models.append(model)
        return model

    yield loaded
    for model in models:
        await model.aclose()


@pytest.fixture
def errors(caplog):
    """Returns the log of a server that runs without OLLAMA_DEBUG, once it has some text."""
    caplog.set_level(logging.INFO)

    async def until(text):
        for _ in range(500):
            if text in caplog.text:
                return caplog.text
            await asyncio.sleep(0.01)
        raise TimeoutError(f"{text!r} was never logged: {caplog.text}")

    return until


async def collect(model, prompt, **fields):
    async with aclosing(model.generate(SequenceRequest(prompt=prompt, **fields))) as events:
        return [event async for event in events]


async def fine(model):
    """Whether the host still serves."""
    return [each.text for each in (await collect(model, "hello"))[:-1]] == ["a", "b"]


async def test_whatever_a_sequence_raises_ends_it_alone(hostile, errors):
    model = await hostile()
    async with asyncio.timeout(60):
        for word, text in RAISED.items():
            with pytest.raises(Exception, match=text) as error:
                await collect(model, f"{SECRET} {word}")
            assert isinstance(error.value, BackendFailedError), word
            assert len(str(error.value)) <= LONGEST_ERROR
            assert await fine(model), word


async def test_whatever_a_call_raises_ends_it_alone(hostile):
    model = await hostile()
    calls = (
        lambda word: model.tokenize(word, add_special=True, parse_special=True),
        lambda word: model.embed(["a", word]),
        lambda word: model.rerank(word, ["a", "b"]),
    )
    async with asyncio.timeout(60):
        for word, text in RAISED.items():
            for call in calls:
                with pytest.raises(BackendFailedError, match=text):
                    await call(word)
        for call, word in zip(calls, ("tok", "emb", "rank"), strict=True):
            with pytest.raises(BackendFailedError, match="CancelledError"):
                await call(f"{word}_cancels_itself")
        assert await fine(model)


@pytest.mark.parametrize("word", [*RAISED, "cancels_itself"])
async def test_whatever_a_load_raises_is_its_error(hostile, word):
    async with asyncio.timeout(30):
        with pytest.raises(LoadFailedError, match=RAISED.get(word, "CancelledError")) as error:
            await hostile(load=word)
    assert type(error.value) is (OutOfMemoryError if word == "memory" else LoadFailedError)


async def test_a_refusal_is_cut(hostile):
    model = await hostile()
    with pytest.raises(InvalidRequestError) as error:
        await collect(model, "refuse_long")
    assert len(str(error.value)) == LONGEST_ERROR


@pytest.mark.parametrize("word", BROKEN)
async def test_a_broken_sequence_is_named(hostile, word):
    model = await hostile()
    async with asyncio.timeout(30):
        with pytest.raises(BackendFailedError, match=BROKEN[word]):
            await collect(model, word, top_logprobs=1)
        assert await fine(model)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("tok_negative", "the id of a token is -1"),
        ("tok_text", ""),
        ("tok_none", ""),
        ("tok_huge", ""),
        ("emb_few", "0 vectors for 2 texts"),
        ("emb_many", "5 vectors for 2 texts"),
        ("emb_unequal", "a vector of 1 numbers instead of 3"),
        ("emb_wrong_length", "a vector of 1 numbers instead of 3"),
        ("emb_text", "embed must return a list of Embedding"),
        ("emb_none", "embed must return a list of Embedding"),
        ("emb_negative_count", "it counted -4 tokens"),
        ("rank_few", "1 scores for 2 documents"),
        ("rank_many", "9 scores for 2 documents"),
        ("rank_nan", "a score is not a finite number"),
        ("rank_inf", "a score is not a finite number"),
        ("rank_text", ""),
    ],
)
async def test_a_broken_answer_is_named(hostile, call, text):
    model = await hostile()
    calls = {
        "tok": lambda: model.tokenize(call, add_special=True, parse_special=True),
        "emb": lambda: model.embed(["a", call]),
        "rank": lambda: model.rerank(call, ["a", "b"]),
    }
    with pytest.raises(BackendFailedError, match=text or None):
        await calls[call.partition("_")[0]]()
    assert await fine(model)


async def test_the_bytes_of_other_tokens_are_refused(hostile):
    model = await hostile()
    with pytest.raises(BackendFailedError, match="the bytes of 1 tokens for 2 tokens"):
        await model.detokenize([99, 100], special=True)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ("no_slots", "the model's parallel is 0"),
        ("negative_context", "the model's context_length is -1"),
        ("negative_size", "the model's size_bytes is -5"),
        ("bad_bos", "the model's bos_id is -9"),
        ("long_bos", "the model's bos_text has 5000000 characters"),
        ("none", "facts must be a ModelFacts, and it is a NoneType"),
        ("text_for_number", "unable to load model"),
        ("huge_number", "unable to load model"),
        ("surrogate", "unable to load model"),
        ("interrupt", "KeyboardInterrupt"),
    ],
)
async def test_impossible_facts_fail_the_load(hostile, facts, text):
    with pytest.raises(LoadFailedError, match=text):
        await hostile(facts=facts)


async def test_no_model_fails_the_load(hostile):
    with pytest.raises(LoadFailedError, match="load must return a LoadedModel, and it returned a NoneType"):
        await hostile(load="none")


async def test_a_traceback_is_logged_under_the_models_name_without_the_prompt(hostile, errors):
    model = await hostile()
    with pytest.raises(BackendFailedError):
        await collect(model, f"{SECRET} quote")
    text = await errors("the backend failed in a sequence: ValueError")
    assert "evil:latest: the backend failed" in text
    assert "puna_hostile.py" in text
    assert SECRET not in text
    for word in ("gen_leaves_a_task", "gen_thread_fails"):
        await collect(model, word)
    assert SECRET not in await errors("failed in the background: ValueError")
    assert SECRET not in await errors("failed in a thread: ValueError")


async def test_tracebacks_are_bounded_in_length_and_number(hostile, errors, caplog):
    model = await hostile()
    for _ in range(30):
        with pytest.raises(BackendFailedError):
            await collect(model, "deep")
    await errors("further errors of its backend are not logged for a minute")
    assert caplog.text.count("RecursionError") < 12
    assert len(caplog.text) < 12 * 8192


@pytest.mark.parametrize(
    ("word", "text"), [("gen_ends_process", "exit status 5"), ("gen_aborts", "SIGABRT"), ("gen_spins", "not answered")]
)
async def test_a_host_that_ends_or_hangs_fails_its_sequences(hostile, word, text):
    model = await hostile(timeouts=HangTimeouts(silence=1.0))
    async with asyncio.timeout(20):
        with pytest.raises(BackendCrashedError, match=text):
            await collect(model, word)


async def test_the_end_of_a_thread_is_no_end_of_the_host(hostile):
    model = await hostile()
    assert len(await collect(model, "gen_thread_exits")) == 3


@pytest.mark.parametrize("step", ["", "text", "interrupt"])
@pytest.mark.parametrize("call", ["gen_never_yields", "emb_never", "rank_never", "tok_never"])
async def test_a_call_that_hangs_behind_a_live_loop_ends(hostile, call, step):
    model = await hostile(timeouts=HangTimeouts(silence=30.0, step=1.0), step=step)
    calls = {
        "gen": lambda: collect(model, call),
        "tok": lambda: model.tokenize(call, add_special=True, parse_special=True),
        "emb": lambda: model.embed([call]),
        "rank": lambda: model.rerank(call, ["a", "b"]),
    }
    async with asyncio.timeout(20):
        with pytest.raises(BackendCrashedError, match=r"no step for 1 seconds|no answer for 1 seconds"):
            await calls[call.partition("_")[0]]()


async def test_a_call_that_hangs_is_found_beside_others_that_go_on(hostile):
    model = await hostile(timeouts=HangTimeouts(silence=30.0, step=1.0))

    async def others():
        while True:
            await model.embed(["a"])
            await asyncio.sleep(0.02)

    busy = asyncio.create_task(others())
    async with asyncio.timeout(20):
        with pytest.raises(BackendCrashedError, match="no step for 1 seconds"):
            await model.embed(["emb_never"])
        with pytest.raises(BackendCrashedError):
            await busy


@pytest.mark.parametrize("word", ["gen_ignores_cancel", "gen_never_closes"])
async def test_a_generator_that_does_not_close_holds_up_no_other(hostile, journal, word):
    model = await hostile(journal=str(journal.path))
    running = asyncio.ensure_future(collect(model, word))
    await journal.until("start")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await journal.until("ignored" if word == "gen_ignores_cancel" else "closing")
    assert await fine(model)


async def test_a_generator_that_never_closes_counts_as_a_hang(hostile, journal):
    model = await hostile(timeouts=HangTimeouts(step=1.0), journal=str(journal.path))
    running = asyncio.ensure_future(collect(model, "gen_never_closes"))
    await journal.until("start")
    running.cancel()
    await journal.until("closing")
    async with asyncio.timeout(20):
        with pytest.raises(BackendCrashedError, match="no step for 1 seconds"):
            for _ in range(500):
                assert await fine(model)
                await asyncio.sleep(0.02)


async def test_text_without_end_is_cut_off(hostile):
    model = await hostile(limits=Limits(max_sequence_bytes=1_000_000))
    texts = []
    with pytest.raises(BackendFailedError, match="more than 1000000 bytes"):
        async for event in model.generate(SequenceRequest(prompt="gen_floods")):
            texts.append(event.text)  # noqa: PERF401 (they are wanted although it raises)
    assert sum(map(len, texts)) <= 1_000_000
    assert await fine(model)


async def test_a_huge_message_ends_the_host(hostile):
    model = await hostile(limits=replace(DEFAULT_LIMITS, max_host_message_bytes=1_000_000))
    with pytest.raises(BackendCrashedError, match=r"a message of 400000.. bytes, above 1000000"):
        await collect(model, "gen_huge")


@pytest.mark.parametrize("how", ["blocks", "ignores_cancel"])
async def test_a_load_without_a_sign_of_life_is_given_up(hostile, how):
    async with asyncio.timeout(15):
        with pytest.raises(HostFailedError, match="timed out waiting for llama-server to start"):
            await hostile(load=how, stall_seconds=1.0)


async def test_a_load_that_blocks_the_loop_and_reports_is_alive(hostile):
    fractions = []
    model = await hostile(load="blocks_and_reports", stall_seconds=1.2, report=fractions.append)
    assert await fine(model)
    assert len([each for each in fractions if 0 < each < 0.96]) > 3
    assert fractions == sorted(fractions)


@pytest.mark.parametrize(("how", "expected"), [("strange_reports", {0.0, 0.5, 1.0}), ("many_reports", None)])
async def test_strange_reports_harm_nobody(hostile, how, expected):
    fractions = []
    model = await hostile(load=how, report=fractions.append)
    assert await fine(model)
    assert set(fractions) <= (expected or set(fractions))
    assert len(fractions) < 100


@pytest.mark.parametrize("close", ["never", "spins", "interrupt", "cancelled"])
async def test_a_model_that_does_not_let_itself_be_freed_is_gone_all_the_same(hostile, close):
    model = await hostile(close=close)
    async with asyncio.timeout(15):
        await model.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(model.pid, 0)


async def test_a_sequence_that_is_well_behaved_is_served(hostile):
    model = await hostile(step="negative")
    assert await collect(model, "hello") == [
        TextDelta("a"),
        TextDelta("b"),
        *(await collect(model, "hello"))[-1:],
    ]
    assert await model.rerank("q", ["a", "b"]) == DocumentScores([0.5, 0.5])
    assert [list(each.values) for each in await model.embed(["a"])] == [pytest.approx([0.6, 0.8, 0.0])]
