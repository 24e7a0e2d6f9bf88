"""Random template programs of both languages, as a server runs them: there is a text or a refusal, and in time."""

import asyncio
import time

import pytest
from hypothesis import given
from tests.core.sandbox import programs
from tests.hostile.fuzz import fuzz

from puna.errors import TemplateError, TemplateRefusedError
from puna.limits import Limits
from puna.messages import Message, Tool
from puna.sandbox.sandbox import Sandbox

LIMITS = Limits(template_seconds=0.5, template_memory_bytes=192 << 20, template_output_bytes=1 << 20)
PATIENCE = 30.0
"""Seconds that one program may take on a machine whose processors others use: its limits are seconds of its own."""
TOOLS = (Tool(name="f", description="d", parameters='{"type":"object","properties":{"x":{"type":"string"}}}'),)
SAID = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="hi"),
    Message(role="assistant", content="yes"),
    Message(role="user", content="<why> " * 20),
)


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="module")
def sandbox(runner):
    opened = Sandbox(LIMITS)
    yield runner.run(opened.__aenter__())
    runner.run(opened.__aexit__(None, None, None))


def bounded(runner, rendering):
    """Render; a template may fail with its own error only, and within its limits."""

    async def run():
        try:
            return await rendering
        except (TemplateError, TemplateRefusedError):
            return ""

    start = time.monotonic()
    text = runner.run(run())
    assert time.monotonic() - start < PATIENCE
    assert len(text.encode(errors="replace")) <= LIMITS.template_output_bytes


@fuzz(15)
@given(source=programs.go)
def test_go_programs(source, runner, sandbox):
    async def render():
        return await sandbox.go_template(source).render(SAID, TOOLS, None)

    bounded(runner, render())


@fuzz(15)
@given(source=programs.jinja)
def test_jinja_programs(source, runner, sandbox):
    async def render():
        return (await sandbox.chat_template(source, "<s>", "</s>").turn(SAID, TOOLS, None, reads=True)).text

    bounded(runner, render())
