"""A scripted backend in a real host process, through every call of the contract."""

import asyncio
import json
import os
import signal
from contextlib import aclosing
from pathlib import Path

import pytest

from puna.backend import (
    Finish,
    InvalidRequestError,
    Prefill,
    PromptTooLongError,
    SequenceRequest,
    TextDelta,
    UnsupportedError,
)
from puna.backend.metadata import enter_request
from puna.errors import BackendCrashedError, BackendFailedError, LoadFailedError, OutOfMemoryError
from puna.runtime.heartbeat import HangTimeouts


def resident():
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def collect(model, prompt):
    async with aclosing(model.generate(SequenceRequest(prompt=prompt))) as events:
        return [event async for event in events]


async def test_a_sequence_comes_through(load_hosted):
    model = await load_hosted()
    prefill, delta, finish = await collect(model, "@prefill 1 0 é")
    assert prefill == Prefill(1, 1)
    assert (delta.text, delta.logprobs[0].raw, delta.logprobs[0].top[0].logprob) == ("é", b"\xc3\xa9", -1.5)
    assert finish == Finish(reason="stop", prompt_tokens=4, output_tokens=1)


async def test_many_sequences_share_the_stream(load_hosted):
    model = await load_hosted()
    prompts = [f"{number} @wait 0.0{number % 3} {number}" for number in range(40)]
    answers = await asyncio.gather(*(collect(model, prompt) for prompt in prompts))
    assert [[event.text for event in answer[:-1]] for answer in answers] == [[str(n), str(n)] for n in range(40)]


async def test_the_other_calls_come_through(load_hosted):
    model = await load_hosted()
    assert await model.tokenize("né", add_special=True, parse_special=True) == [1, 110, 233, 2]
    assert await model.detokenize([1, 233], special=False) == [b"", b"\xc3\xa9"]
    vectors = await model.embed(["ab", (1, 2, 3)], raw=True)
    assert [(list(each.values), each.token_count) for each in vectors] == [([2.0, 0.5, 1.0], 2), ([3.0, 0.5, 1.0], 3)]
    assert model.facts.bos_text == "<s>"


async def test_a_text_alone_has_the_vector_that_it_has_in_a_list(load_hosted):
    model = await load_hosted()
    for text in ("ab", (1, 2, 3)):
        (alone,) = await model.embed([text])
        assert [alone, alone] == await model.embed([text, text])


async def test_each_request_has_its_own_metadata_at_the_host(load_hosted, journal):
    model = await load_hosted(journal=str(journal.path))

    async def ask(number):
        sent = {"x-request-id": f"id-{number}", "traceparent": f"00-{number:032x}-{number:016x}-01", "other": "x"}
        enter_request(sent)
        delta, _ = await collect(model, "@metadata")
        await model.embed(["a"])
        await model.tokenize("a", add_special=False, parse_special=False)
        return {name: sent[name] for name in ("traceparent", "x-request-id")}, json.loads(delta.text)

    answers = await asyncio.gather(*(asyncio.create_task(ask(number)) for number in range(1, 9)))
    assert all(sent == got for sent, got in answers)
    for call in ("embed", "tokenize"):
        noted = [line.partition(" ")[2] for line in journal.lines() if line.startswith(call)]
        assert sorted(noted) == sorted(json.dumps(sent) for sent, _ in answers)
    # A request without metadata after requests that had some.
    delta, _ = await collect(model, "@metadata")
    assert json.loads(delta.text) == {}


@pytest.mark.parametrize(
    ("prompt", "error", "text"),
    [
        ("@refuse", InvalidRequestError, "not this"),
        ("@unsupported", UnsupportedError, "cannot"),
        ("@raise", BackendFailedError, "oh dear"),
        ("@unended", BackendFailedError, "ended without a Finish"),
    ],
)
async def test_a_sequences_errors_come_as_themselves(load_hosted, prompt, error, text):
    model = await load_hosted()
    with pytest.raises(error, match=text):
        await collect(model, f"a {prompt}")
    assert len(await collect(model, "a")) == 2


async def test_too_long_says_by_how_much(load_hosted):
    model = await load_hosted()
    for call in (collect(model, "@long"), model.embed(["@long"])):
        with pytest.raises(PromptTooLongError) as error:
            await call
        assert (error.value.prompt_tokens, error.value.context_length) == (9, 4)


async def test_a_calls_errors_come_as_themselves(load_hosted):
    model = await load_hosted()
    with pytest.raises(InvalidRequestError, match="no such token"):
        await model.detokenize([-1], special=True)
    with pytest.raises(UnsupportedError, match="does not support reranking"):
        await model.rerank("a", ["b"])
    with pytest.raises(BackendFailedError) as error:
        await model.embed(["@raise"])
    assert str(error.value) == 5000 * "é"


@pytest.mark.parametrize("prompt", ["@prefill 100 60", "a @wait 60", "@endless"])
async def test_closing_the_generator_stops_the_sequence_at_once(load_hosted, journal, prompt):
    model = await load_hosted()
    async with aclosing(model.generate(SequenceRequest(prompt=prompt))) as events:
        async for _ in events:
            break
    await journal.until("end")
    assert "stopped" in journal.lines()
    assert len(model._incoming) == 0


@pytest.mark.parametrize("prompt", ["@wait 60", "@prefill 100 60", "@endless"])
async def test_cancelling_the_task_stops_the_sequence_at_once(load_hosted, journal, prompt):
    model = await load_hosted()
    task = asyncio.ensure_future(collect(model, prompt))
    await journal.until("start")
    task.cancel()
    await journal.until("end")
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_under_way_when_the_model_goes_ends_with_an_error(load_hosted):
    """Closing the channel cancels its calls. Their callers have not left, and must hear of it."""
    model = await load_hosted()
    os.kill(model.pid, signal.SIGSTOP)
    calls = [asyncio.ensure_future(model.tokenize("a", add_special=False, parse_special=False)) for _ in range(3)]
    await asyncio.sleep(0.05)
    closing = asyncio.ensure_future(model.aclose())
    for call in calls:
        with pytest.raises(BackendCrashedError, match="unloaded"):
            await call
    os.kill(model.pid, signal.SIGCONT)
    await closing
    with pytest.raises(BackendCrashedError, match="unloaded"):
        await model.tokenize("a", add_special=False, parse_special=False)


async def test_a_cancelled_call_is_cancelled_in_the_host(load_hosted):
    model = await load_hosted()
    task = asyncio.ensure_future(model.tokenize("a", add_special=False, parse_special=False))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await model.tokenize("a", add_special=False, parse_special=False) == [97]


async def test_cancelled_calls_leave_no_memory_behind(load_hosted):
    model = await load_hosted()

    async def give_up(times):
        for _ in range(times):
            task = asyncio.ensure_future(model.tokenize("a", add_special=False, parse_special=False))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await model.tokenize("a", add_special=False, parse_special=False) == [97]
        return resident()

    before = await give_up(500)
    assert await give_up(4000) - before < 1_000_000


async def test_a_crash_ends_every_sequence_with_the_last_words(load_hosted):
    deaths = []
    model = await load_hosted(on_death=lambda: deaths.append(1))
    answers = await asyncio.gather(
        collect(model, "@wait 60"), collect(model, "a @crash SIGSEGV"), return_exceptions=True
    )
    for answer in answers:
        assert isinstance(answer, BackendCrashedError)
        assert str(answer) == (
            "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
            "check ollama server logs for details: SIGSEGV (segmentation fault in native code): "
            "first words | last words"
        )
    assert deaths == [1]
    for call in (collect(model, "a"), model.tokenize("a", add_special=True, parse_special=True)):
        with pytest.raises(BackendCrashedError, match="SIGSEGV"):
            await call
    assert deaths == [1]


async def test_an_exit_counts_as_a_crash(load_hosted):
    model = await load_hosted()
    with pytest.raises(BackendCrashedError, match=r"details: exit status 3: first words \| last words$"):
        await collect(model, "@exit 3")


async def test_a_crash_in_a_call_is_explained_too(load_hosted):
    model = await load_hosted()
    with pytest.raises(BackendCrashedError, match=r"SIGKILL \(killed, probably out of memory\)"):
        await model.embed(["@crash"])


async def test_a_host_killed_while_idle_is_noticed(load_hosted):
    dead = asyncio.Event()
    model = await load_hosted(on_death=dead.set)
    os.kill(model.pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        await dead.wait()


async def test_pieces_that_came_before_the_crash_are_handed_out(load_hosted):
    model = await load_hosted()
    seen = []
    with pytest.raises(BackendCrashedError):
        async for event in model.generate(SequenceRequest(prompt="a b @wait 0.05 @crash SIGKILL")):
            seen.append(event.text)  # noqa: PERF401 (they are wanted although it raises)
    assert seen == ["a", "b"]


@pytest.mark.parametrize("prompt", ["a @wait 60", "a @hang"])
async def test_a_host_that_hangs_is_killed_and_all_that_wait_for_it_hear_of_it(load_hosted, journal, prompt):
    deaths = []
    model = await load_hosted(on_death=lambda: deaths.append(1), timeouts=HangTimeouts(silence=1.0), parallel=2)
    running = asyncio.ensure_future(collect(model, prompt))
    await journal.until("start" if "wait" in prompt else "hangs")
    os.kill(model.pid, signal.SIGSTOP if "wait" in prompt else signal.SIGCONT)
    calls = [running, collect(model, "a"), model.tokenize("a", add_special=True, parse_special=True)]
    async with asyncio.timeout(10):
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, BackendCrashedError)
            assert str(answer).endswith("check ollama server logs for details: it has not answered for 1 seconds")
    assert deaths == [1]
    await model.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(model.pid, 0)


async def test_a_host_that_hangs_while_idle_is_noticed(load_hosted):
    dead = asyncio.Event()
    model = await load_hosted(on_death=dead.set, timeouts=HangTimeouts(silence=0.5))
    os.kill(model.pid, signal.SIGSTOP)
    async with asyncio.timeout(10):
        await dead.wait()


async def test_work_that_makes_no_step_is_a_hang_too(load_hosted):
    model = await load_hosted(timeouts=HangTimeouts(step=1.0))
    assert await collect(model, "@prefill 15 0.1 a")  # longer, but step by step
    await asyncio.sleep(1.5)  # without work
    with pytest.raises(BackendCrashedError, match=r"its work has made no step for 1 seconds$"):
        await collect(model, "a @wait 60")


async def test_a_host_that_ignores_its_end_is_killed(load_hosted, monkeypatch):
    monkeypatch.setattr("puna.runtime.host_process.TERM_SECONDS", 0.3)
    model = await load_hosted()
    await collect(model, "@ignore")
    async with asyncio.timeout(5):
        await model.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(model.pid, 0)


async def test_a_closed_model_has_no_process_left(load_hosted, journal):
    deaths = []
    model = await load_hosted(on_death=lambda: deaths.append(1))
    await model.aclose()
    assert journal.lines()[-1] == "closed"
    assert deaths == []
    with pytest.raises(ProcessLookupError):
        os.kill(model.pid, 0)
    with pytest.raises(BackendCrashedError, match="unloaded"):
        await collect(model, "a")


async def test_loading_tells_how_far_it_is(load_hosted):
    fractions = []
    await load_hosted(report=fractions.append, load="slow")
    assert fractions == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])


@pytest.mark.parametrize("how", ["slow", "chatter"])
async def test_a_load_that_shows_life_may_take_its_time(load_hosted, how):
    assert (await load_hosted(stall_seconds=1.2, load=how)).facts.parallel == 1


async def test_a_load_that_stalls_is_given_up(load_hosted, short_path):
    with pytest.raises(LoadFailedError, match="timed out waiting for llama-server to start - stuck"):
        await load_hosted(stall_seconds=0.5, load="stall")
    assert list(short_path.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("refuse", LoadFailedError, "unable to load model: no model of mine"),
        ("raise", LoadFailedError, "unable to load model: No module named 'heavy'"),
        ("memory", OutOfMemoryError, "unable to load model: no room"),
        ("exit", LoadFailedError, "llama-server process has terminated: exit status 3: cannot open the file"),
        (
            "crash",
            LoadFailedError,
            "llama-server process has terminated: SIGILL (the CPU lacks instructions that the backend was built for)",
        ),
    ],
)
async def test_a_load_that_fails_says_why_and_leaves_nothing(load_hosted, short_path, how, error, text):
    with pytest.raises(error) as failure:
        await load_hosted(load=how)
    assert str(failure.value) == text
    assert list(short_path.iterdir()) == []


async def test_cancelling_a_load_ends_its_host(load_hosted, journal):
    task = asyncio.ensure_future(load_hosted(load="stall"))
    await journal.until("loading")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(journal.lines()[0].split()[1]), 0)


async def test_pieces_of_one_step_arrive_in_order(load_hosted):
    model = await load_hosted()
    events = await collect(model, "@together 500")
    assert [event.text for event in events if isinstance(event, TextDelta)] == [str(number) for number in range(500)]
