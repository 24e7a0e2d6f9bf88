"""Failures of an upstream become errors that say what to do, and that never hold a key."""

import asyncio
import logging
from contextlib import suppress

import pytest
from tests.plugins.openai.front import KEY

from puna.backend import BackendError, InvalidRequestError, PromptTooLongError, UnavailableError


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        ("fault:400", InvalidRequestError, "refused the request (status 400): bad temperature; you sent ***"),
        ("fault:401", BackendError, "refused the server's key (status 401)"),
        ("fault:403", BackendError, "refused the server's key (status 403)"),
        ("fault:404", InvalidRequestError, "does not know model 'fault:404'"),
        ("fault:429", UnavailableError, "takes no more requests now (status 429), try again later: Rate limit reached"),
        ("fault:500", BackendError, "failed (status 500): CUDA error"),
        ("fault:502", UnavailableError, "failed (status 502): no reason given"),
        ("fault:detail", InvalidRequestError, "field required"),
        ("fault:redirect", BackendError, "failed (status 302)"),
        ("fault:cut", BackendError, "ended its answer too early"),
        ("fault:no-reason", BackendError, "ended its answer too early"),
        ("empty", UnavailableError, "ended its answer too early"),
        ("fault:html", BackendError, "of type 'text/html'"),
        ("fault:json", BackendError, "of type 'application/json'"),
        ("fault:nonsense", BackendError, "it is no JSON"),
        ("fault:not-utf-8", BackendError, "cannot be read"),
        ("fault:huge-line", BackendError, "more than 1048576 bytes at once"),
        ("fault:compressed", BackendError, "a compressed answer"),
        ("fault:bad-arguments", BackendError, "the arguments of a tool call are no JSON object"),
        ("fault:array-arguments", BackendError, "the arguments of a tool call are no JSON object"),
        ("fault:nameless-call", BackendError, "a tool call has no name"),
        ("fault:many-calls", BackendError, "more than 128 tool calls"),
        ("fault:number-content", BackendError, "content is no text"),
        ("fault:text-choices", BackendError, "choices is no list"),
        ("fault:error-event", BackendError, "failed: engine died, key ***"),
        ("fault:late-error-event", BackendError, "failed: engine died"),
    ],
)
async def test_each_fault_has_its_error(load, run, ask, model, kind, words):
    loaded = await load(model, max_event_bytes=1 << 20)
    with pytest.raises(BackendError) as caught:
        await asyncio.wait_for(run(loaded, ask()), 20)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "'front'" in str(caught.value)
    assert KEY not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


async def test_a_logarithm_that_is_none(load, run, ask):
    with pytest.raises(BackendError, match="no logarithm"):
        await run(await load("fault:nan-logprob"), ask(top_logprobs=0))


@pytest.mark.parametrize("model", ["fault:too-long-vllm", "fault:too-long-llama"])
async def test_a_prompt_that_is_too_long(load, run, ask, model):
    with pytest.raises(PromptTooLongError) as caught:
        await run(await load(model), ask())
    assert (caught.value.prompt_tokens, caught.value.context_length) == (700, 512)


async def test_an_upstream_that_is_down(load, run, ask, unused_tcp_port):
    loaded = await load("hello", base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    with pytest.raises(UnavailableError, match="upstream 'front' cannot be reached"):
        await run(loaded, ask())


async def test_no_log_line_holds_the_key(load, run, ask, caplog):
    caplog.set_level(logging.DEBUG)
    for model in ("hello", "fault:401", "fault:429"):
        with suppress(BackendError):
            await run(await load(model), ask("a private prompt"))
    assert KEY not in caplog.text
