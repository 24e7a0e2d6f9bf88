import asyncio

import pytest

from puna.errors import TemplateError
from puna.limits import Limits
from puna.sandbox.sandbox import PREFETCHED, Sandbox

LARGE = "{{/* " + "x" * 10_000 + " */}}{{ .Prompt }}"


@pytest.fixture
async def sandbox():
    async with Sandbox(Limits()) as opened:
        yield opened


async def test_facts_of_a_small_template_need_no_worker(sandbox):
    await sandbox.prefetch_facts("{{ .System }}{{ .Prompt }}")
    assert await asyncio.to_thread(sandbox.facts, "{{ .Prompt }}")


async def test_facts_of_a_large_template_are_prefetched(sandbox, monkeypatch):
    await sandbox.prefetch_facts(LARGE)
    monkeypatch.setattr("asyncio.run_coroutine_threadsafe", None)  # a thread need not ask the event loop any more
    assert await asyncio.to_thread(sandbox.facts, LARGE)


async def test_an_error_is_raised_when_the_facts_are_read(sandbox):
    broken = LARGE + "{{ if }}"
    await sandbox.prefetch_facts(broken)
    with pytest.raises(TemplateError):
        await asyncio.to_thread(sandbox.facts, broken)


async def test_only_the_last_prefetched_facts_are_kept(sandbox):
    for number in range(PREFETCHED + 3):
        await sandbox.prefetch_facts(f"{LARGE}{number}")
    assert len(sandbox._prefetched) == PREFETCHED
