"""Workers are killed and replaced, requests are fair to each other, and nothing stays behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.core.serving.asking import until

from puna.errors import TemplateError, TemplateLimitError, TemplateRefusedError
from puna.limits import Limits
from puna.messages import Message
from puna.sandbox import lanes, wire
from puna.sandbox.lanes import FairQueue, Lanes
from puna.sandbox.process import CACHED_TEMPLATES, Template, Worker, WorkerGoneError
from puna.sandbox.sandbox import Sandbox

USER = Message(role="user", content="hi")
FOREVER = "{% for i in range(9999) %}{% for i in range(9999) %}{% endfor %}{% endfor %}"
LIMITS = Limits(template_seconds=1.0, template_memory_bytes=128 << 20, template_output_bytes=1 << 20)
HUNGRY = (
    "{{ 'x' * 10 ** 9 }}",
    "{{ '%2000000000d' % 1 }}",
    "{{ 'x'.center(10 ** 9) }}{{ 'x'.zfill(10 ** 9) }}",
    "{{ 'x' | indent(10 ** 9, true) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ ('a' * 50000).replace('a', 'b' * 50000) }}",
    "{{ [0] * 10 ** 9 }}",
    "{% set n = namespace(s='xx') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
)
ENDLESS = (
    FOREVER,
    "{{ 10 ** (10 ** 8) }}",
    "{{ lipsum(9999, true, 99, 999) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
)


@pytest.fixture
async def sandbox():
    async with Sandbox(LIMITS) as answer_prefix:
        yield answer_prefix


def native(sandbox, source):
    return sandbox.chat_template(source, "", "")


async def render(sandbox, source):
    return (await native(sandbox, source).turn([USER], (), None, reads=True)).text


def workers():
    """Process ids of workers that this process has."""
    found = []
    for each in Path("/proc").iterdir():
        with suppress(OSError):
            ours = each.name.isdigit() and b"puna.sandbox" in (each / "cmdline").read_bytes()
            if ours and int((each / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(each.name))
    return found


def processor_ticks(pid):
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def environment(pid):
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.parametrize("source", HUNGRY)
async def test_memory_is_bounded(sandbox, source):
    with pytest.raises(TemplateLimitError, match=r"134217728 bytes of memory \(PUNA_TEMPLATE_MEMORY_BYTES\)"):
        await render(sandbox, source)
    assert await render(sandbox, "ok") == "ok"


@pytest.mark.parametrize("source", ENDLESS)
async def test_time_is_bounded(sandbox, source):
    with pytest.raises(TemplateLimitError, match=r"exceeds the limit of 1 s \(PUNA_TEMPLATE_SECONDS\)"):
        await render(sandbox, source)
    assert await render(sandbox, "ok") == "ok"


async def test_output_is_bounded(sandbox):
    with pytest.raises(TemplateLimitError, match=r"1048576 bytes of text \(PUNA_TEMPLATE_OUTPUT_BYTES\)"):
        await render(sandbox, "{{ 'xy' * 600000 }}")


async def test_the_source_is_bounded(sandbox):
    with pytest.raises(TemplateLimitError, match=r"262144 bytes \(PUNA_TEMPLATE_BYTES\)"):
        await render(sandbox, "x" * 300_000)
    assert workers() == []


@pytest.mark.parametrize(
    "source",
    [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
        "{{ raise_exception(messages) }}",
        "{{ 'x'.encode().decode('no such thing') }}",
        "{{ 1 / 0 }}{{ [].pop() }}",
    ],
)
async def test_whatever_else_goes_wrong_is_the_templates_fault(sandbox, source):
    with pytest.raises((TemplateError, TemplateRefusedError)):
        await render(sandbox, source)
    assert await render(sandbox, "ok") == "ok"


async def test_probing_is_bounded(sandbox):
    """A layout is derived by rendering conversations of our own, on any of which a template may hang."""
    source = "{% if tools %}" + FOREVER + "{% endif %}x"
    with pytest.raises(TemplateLimitError):
        await native(sandbox, source).layout(tools=False)


async def test_slow_templates_delay_others_by_a_moment_only():
    """Without a second lane four of them would keep both workers for the whole time that a template has."""
    async with Sandbox(replace(LIMITS, template_seconds=60)) as sandbox:
        slow = [asyncio.create_task(render(sandbox, FOREVER + "x" * number)) for number in range(4)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            assert await render(sandbox, "ok") == "ok"
        assert not any(each.done() for each in slow)
        for each in slow:
            each.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_a_request_that_is_given_up_ends_its_rendering():
    async with Sandbox(replace(LIMITS, template_seconds=60)) as sandbox:
        await render(sandbox, "ok")
        (before,) = workers()
        used = processor_ticks(before)
        task = asyncio.create_task(render(sandbox, FOREVER))
        await until(lambda: processor_ticks(before) > used + 5)  # more than it takes to begin
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: before not in workers())
        assert await render(sandbox, "ok") == "ok"


async def test_a_short_rendering_that_is_given_up_costs_no_worker(sandbox):
    await render(sandbox, "ok")
    before = workers()
    for _ in range(20):
        task = asyncio.create_task(render(sandbox, "ok"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert await render(sandbox, "ok") == "ok"
    assert set(before) <= set(workers())


async def test_a_worker_that_was_killed_is_replaced(sandbox):
    await render(sandbox, "ok")
    (pid,) = workers()
    os.kill(pid, signal.SIGKILL)
    assert await render(sandbox, "ok") == "ok"
    assert workers() != [pid]


async def test_a_worker_that_is_killed_at_work_is_replaced_once(sandbox):
    task = asyncio.create_task(render(sandbox, FOREVER))
    await until(workers)
    await asyncio.sleep(0.2)
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(TemplateLimitError):
        await task


async def test_memory_of_a_worker_does_not_grow(sandbox):
    for number in range(2 * CACHED_TEMPLATES):
        assert await render(sandbox, f"{number}") == f"{number}"
    assert len(workers()) == 1


async def test_nothing_stays_when_the_sandbox_closes():
    async with Sandbox(LIMITS) as answer_prefix:
        await render(answer_prefix, "ok")
        running = asyncio.create_task(render(answer_prefix, FOREVER))
        answer_prefix.warm()
        await asyncio.sleep(0.2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert workers() == []


async def test_a_worker_inherits_no_secret(sandbox, monkeypatch):
    monkeypatch.setenv("PUNA_REGISTRY_PASSWORD", "hunter2")
    await render(sandbox, "ok")
    (pid,) = workers()
    assert b"hunter2" not in environment(pid)
    assert os.getpgid(pid) == pid


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_ends_with_its_parent(busy):
    """The core is killed while it waits or works."""
    program = f"""
        import asyncio
        from puna.limits import Limits
        from puna.sandbox.process import Template, Worker
        async def main():
            worker = await Worker.start(Limits())
            print(worker.pid, flush=True)
            if {busy}:
                template = Template([{FOREVER!r}, "", "", "", False, False])
                worker.ask(template, {{"ask": "layout", "tools": False, "seconds": 99}})
            await asyncio.sleep(60)
        asyncio.run(main())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    assert Path(f"/proc/{pid}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() != b"":
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_the_kernel_ends_a_worker_whose_core_does_not():
    worker = await Worker.start(LIMITS)
    content = [FOREVER, "", "", "", False, False]
    with pytest.raises(WorkerGoneError):
        await worker.ask(Template(content), {"ask": "layout", "tools": False, "seconds": 0.1})
    await worker.close()


@pytest.mark.parametrize(
    "said",
    [
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x03{]}",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02{}extra",
        wire.pack({"answer": 5}),
        wire.pack({"answer": ["x", None]}),
        wire.pack({"failed": {"a": 1}}),
        wire.HEADER.pack(200_000) + b"[" * 200_000,
    ],
)
async def test_the_core_believes_no_strange_answer(sandbox, monkeypatch, said):
    """A template that takes over its process reaches no further."""

    def write(line, data):
        asyncio.get_running_loop().call_soon(line.data_received, said)

    await render(sandbox, "ok")
    monkeypatch.setattr("puna.sandbox.process._WorkerProtocol.write", write)
    monkeypatch.setattr(Worker, "start", _unavailable)
    with pytest.raises(TemplateError, match="the process that ran it has ended"):
        await render(sandbox, "ok")


async def _unavailable(_limits, **_more):
    raise WorkerGoneError


async def test_places_are_given_by_turns():
    queue, order = FairQueue(1), []
    await queue.acquire("first")

    async def wait(name, number):
        await queue.acquire(name)
        order.append((name, number))
        queue.release()

    tasks = [asyncio.create_task(wait("many", number)) for number in range(3)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(wait("one", 0)))
    await asyncio.sleep(0)
    queue.release()
    await asyncio.gather(*tasks)
    assert order == [("many", 0), ("one", 0), ("many", 1), ("many", 2)]


async def test_who_leaves_the_line_costs_nobody_a_place():
    queue = FairQueue(1)
    await queue.acquire("a")
    waiting = asyncio.create_task(queue.acquire("b"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    queue.release()
    async with asyncio.timeout(1):
        await queue.acquire("c")


async def test_requests_share_the_places():
    lanes = Lanes(replace(LIMITS, template_workers=1))
    template = Template(["{{ messages[0].content }}", "", "", "", False, False])
    request = {"ask": "turn", "messages": wire.messages_out([USER]), "tools": [], "think": None, "reads": False}
    found = await asyncio.gather(
        *(lanes.ask(str(n % 3), template, dict(request), lambda value: value[0]) for n in range(30))
    )
    assert found == ["hi"] * 30
    assert len(workers()) == 1
    await lanes.close()
    assert workers() == []


async def test_a_template_that_gets_no_processor_is_told_of_its_limit(monkeypatch):
    """The worker ends by its own timer a second later, which must not be what the client hears of."""
    monkeypatch.setattr(lanes, "WALL_CLOCK_FACTOR", 1.1)
    monkeypatch.setattr(Worker, "cpu_seconds", lambda _: 0.0)
    async with Sandbox(replace(LIMITS, template_seconds=1.5)) as starved:
        with pytest.raises(TemplateLimitError, match="PUNA_TEMPLATE_SECONDS"):
            await render(starved, FOREVER)


async def test_a_text_that_no_template_may_write_is_sent_to_no_worker(sandbox):
    """Encoding it would keep the event loop for as long as the text is."""
    long = Message(role="user", content="x" * (LIMITS.template_output_bytes + 1))
    before = workers()
    for ask in (
        native(sandbox, "{{ messages[0].content }}").turn([long], (), None, reads=True),
        sandbox.go_template("{{ .Prompt }}").render([long], (), None),
        sandbox.go_template("{{ .Prompt }}{{ .Suffix }}").fill(long.content, "a", None),
    ):
        with pytest.raises(TemplateLimitError, match="PUNA_TEMPLATE_OUTPUT_BYTES"):
            await ask
    assert workers() == before
