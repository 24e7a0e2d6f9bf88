"""Small Go templates run here, within a budget; all others, and Jinja, in a worker. Both write the same."""

import asyncio
import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from tests.core.sandbox import programs

from puna.errors import TemplateError, TemplateLimitError, TemplateRefusedError
from puna.go.template.budget import Budget, BudgetSpentError
from puna.go.template.parser import parse
from puna.limits import Limits
from puna.messages import Message, Tool, ToolCall
from puna.prompt.go_template.render import render_go
from puna.prompt.layout import OutputLayout
from puna.sandbox import templates, wire
from puna.sandbox.sandbox import Sandbox

LIMITS = Limits(template_seconds=1.0, template_memory_bytes=128 << 20, template_output_bytes=1 << 20)
USER = Message(role="user", content="hi")
TALK = (
    "{{ range .Messages }}[{{ .Role }}]{{ .Content }}{{ len .Images }}{{ range .ToolCalls }}{{ .Function }}{{ end }}"
    "{{ end }}{{ .Tools }}"
)
CONVERSATION = [
    Message(role="system", content="S"),
    Message(role="user", content="\U0001f600 \ud800", media=(b"png", b"jpg")),
    Message(
        role="assistant", thinking="T", tool_calls=(ToolCall(name="f", arguments='{"b":1,"a":[2]}', index=1, id="i"),)
    ),
    Message(role="tool", content="R", tool_name="f", tool_call_id="i"),
]
TOOLS = [Tool(name="f", description="d", parameters='{"type":"object","properties":{"x":{"type":["string","null"]}}}')]


@pytest.fixture
async def sandbox():
    async with Sandbox(LIMITS) as answer_prefix:
        yield answer_prefix


@pytest.fixture
def elsewhere(monkeypatch):
    """Have every Go template run in a worker."""
    monkeypatch.setattr(templates, "SMALL_SOURCE", -1)


async def test_an_ordinary_template_needs_no_worker(sandbox, monkeypatch):
    monkeypatch.setattr("puna.sandbox.lanes.Lanes.ask", None)
    assert "[system]S" in await sandbox.go_template(TALK).render(CONVERSATION, TOOLS, None)
    assert await sandbox.go_template("{{ .Prompt }}|{{ .Suffix }}{{ .Response }}").fill("a", "b", None) == "a|b"


async def test_places_of_media_cross_to_a_worker(sandbox):
    template = sandbox.chat_template("{% for m in messages %}{{ m.content }}{% endfor %}", "", "")
    message = Message(role="user", content="ab", media=(b"1", b"2"), media_at=(1, 2))
    assert (await template.turn([message], [], None, reads=False)).text == "a[img-0]b[img-1]"


async def test_a_worker_writes_the_same(sandbox, elsewhere):
    there = await sandbox.go_template(TALK).render(CONVERSATION, TOOLS, None)
    media = [
        Message(role=m.role, content=m.content, media=(b"",) * len(m.media), tool_calls=m.tool_calls)
        for m in CONVERSATION
    ]
    assert there == render_go(parse(TALK), media, TOOLS, None)
    assert await sandbox.go_template("{{ .Prompt }}|{{ .Suffix }}{{ .Response }}").fill("a", "b", None) == "a|b"


@pytest.mark.parametrize(
    "text", ["{{ .Prompt", "{{ .Prompt.x }}{{ .Response }}", "{{ index .Prompt 9 }}{{ .Response }}"]
)
async def test_errors_have_the_same_words_in_a_worker(sandbox, monkeypatch, text):
    with pytest.raises(TemplateError) as here:
        await sandbox.go_template(text).render([USER], (), None)
    monkeypatch.setattr(templates, "SMALL_SOURCE", -1)
    with pytest.raises(TemplateError) as there:
        await sandbox.go_template(text).render([USER], (), None)
    assert str(here.value) == str(there.value)


async def test_facts_are_the_same_from_a_worker(sandbox, elsewhere):
    text = "{{ .Tools }}{{ range .Messages }}<t>{{ .Thinking }}</t>{{ if .ToolCalls }}<call>{{ end }}{{ end }}"
    template = sandbox.go_template(text)
    assert await template.facts() == template.facts_here()


@pytest.mark.parametrize(
    "text",
    [
        "{{ range 999999999999 }}{{ end }}{{ .Prompt }}",
        '{{ define "a" }}{{ range 9999 }}{{ template "b" . }}{{ end }}{{ end }}'
        '{{ define "b" }}{{ range 99999 }}{{ end }}{{ end }}{{ template "a" . }}{{ .Messages }}',
        "{{ range 99999 }}{{ range 99999 }}x{{ end }}{{ end }}{{ .Prompt }}",
    ],
)
async def test_a_go_template_that_never_ends_is_ended(sandbox, text):
    start = time.process_time()
    with pytest.raises(TemplateLimitError, match="PUNA_TEMPLATE_SECONDS"):
        await sandbox.go_template(text).render([USER], (), None)
    assert time.process_time() - start < 1


async def test_a_go_template_that_calls_itself_is_ended(sandbox):
    text = '{{ define "a" }}{{ template "a" . }}{{ template "a" . }}{{ end }}{{ template "a" . }}{{ .Messages }}'
    with pytest.raises(TemplateError, match="exceeded maximum template depth"):
        await sandbox.go_template(text).render([USER], (), None)


async def test_a_go_template_that_makes_too_much_is_ended(sandbox):
    doubling = "{{ $x := .Prompt }}" + '{{ $x = printf "%s%s" $x $x }}' * 60 + "{{ $x }}"
    with pytest.raises(TemplateLimitError, match="MEMORY"):
        await sandbox.go_template(doubling).render([USER], (), None)
    with pytest.raises(TemplateLimitError, match="OUTPUT"):
        await sandbox.go_template("{{ range 20000 }}" + "x" * 100 + "{{ end }}{{ .Prompt }}").render([USER], (), None)


async def test_a_source_that_is_too_long_is_not_read(sandbox):
    with pytest.raises(TemplateLimitError, match=r"262144 bytes \(PUNA_TEMPLATE_BYTES\)"):
        await sandbox.go_template("{{ . }}" * 200_000).render([USER], (), None)


MEAN = (
    '{{ printf "%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s" $x }}',
    '{{ printf "%[1]v%[1]v%[1]v%[1]v%[1]v%[1]v%[1]v%[1]v" .Tools }}',
    "{{ js $x }}",
    "{{ html $x }}",
    "{{ urlquery $x }}",
    "{{ json .Tools }}",
    "{{ print .Tools .Tools .Tools .Tools .Tools .Tools }}",
    "{{ if lt $x $x }}{{ end }}",
    "{{ len $x }}",
    "{{ slice $x 1 }}",
    '{{ printf "%q" $x }}',
    "{{ .Messages }}",
    "{{ $x }}",
    "{{ (index .Tools 0).Function.Parameters.Properties }}",
    "{{ range .Tools }}{{ range .Function.Parameters.Properties }}{{ .ToTypeScriptType }}{{ end }}{{ end }}",
    "{{ range $k, $v := (index .Tools 0).Function.Parameters.Properties }}{{ $k }}{{ end }}",
    "{{ $v := 1 }}{{ $v }}",
    "{{ if eq .Tools .Tools }}{{ end }}",
)


@pytest.mark.parametrize("action", MEAN)
def test_the_budget_bounds_what_the_densest_templates_take(action):
    """The dearest functions over as much data as may be given here, as often as a small source has room for."""
    text = "{{ $x := .System }}{{ .Messages }}" + action * ((templates.SMALL_SOURCE - 60) // len(action))
    tree = parse(text)
    assert len(text) <= templates.SMALL_SOURCE
    properties = ",".join(f'"{n}":{{"type":["a","b"],"anyOf":[{{}},{{}},{{}}]}}' for n in range(300))
    tools = [Tool(name="f", parameters=f'{{"type":"object","properties":{{{properties}}}}}')]
    messages = [Message(role="system", content="\u00e9<&" * 80_000)]
    budget = templates._budget(messages, tools)
    assert budget is not None
    start = time.thread_time()
    with suppress(BudgetSpentError, TemplateError):
        render_go(tree, messages, tools, None, budget)
    assert time.thread_time() - start < 0.5


@pytest.mark.parametrize("field", ["name", "description", "parameters", "type", "items"])
def test_every_text_of_a_tool_counts(field):
    """`{{ .Tools }}` writes all of them."""
    assert templates._budget([USER], [Tool(**({"name": "f"} | {field: "x" * 20_000}))]) is None


@pytest.mark.parametrize("field", ["role", "content", "thinking", "tool_name", "tool_call_id"])
def test_every_text_of_a_message_counts(field):
    assert templates._budget([Message(**({"role": "user"} | {field: "x" * 300_000}))], ()) is None


@pytest.mark.parametrize("field", ["name", "arguments", "id"])
def test_every_text_of_a_call_counts(field):
    call = ToolCall(**({"name": "f", "arguments": "{}"} | {field: "x" * 20_000}))
    assert templates._budget([Message(role="assistant", tool_calls=(call,))], ()) is None


def test_a_run_without_a_budget_has_no_bound():
    assert len(parse("{{ range 50000 }}x{{ end }}{{ .Response }}").execute({"Response": ""})) == 50000
    with pytest.raises(BudgetSpentError):
        parse("{{ range 50000 }}x{{ end }}{{ .Response }}").execute({"Response": ""}, budget=Budget(1000))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=programs.go)
def test_no_go_program_runs_long_within_its_budget(text):
    if len(text) > templates.SMALL_SOURCE:
        return
    start = time.thread_time()
    with suppress(BudgetSpentError, TemplateError):
        render_go(parse(text), CONVERSATION, TOOLS, None, templates._budget(CONVERSATION, TOOLS))
    assert time.thread_time() - start < 0.5


async def test_any_program_ends_with_a_text_or_an_error():
    """Random programs of both languages, in workers with tight limits."""
    limits = Limits(template_seconds=0.6, template_memory_bytes=128 << 20, template_output_bytes=1 << 20)
    async with Sandbox(limits) as sandbox:
        for language, source in programs.samples(8):
            async with asyncio.timeout(20):
                with suppress(TemplateError, TemplateRefusedError):
                    if language == "go":
                        text = await sandbox.go_template(source).render(CONVERSATION, TOOLS, None)
                    else:
                        template = sandbox.chat_template(source, "", "")
                        text = (await template.turn(CONVERSATION, TOOLS, None, reads=True)).text
                    assert len(text) <= 1 << 20


def test_a_form_survives_the_wire():
    layout = OutputLayout(
        name="derived", thinks=True, thinking_start="<t>", preserved_tokens=("<t>",), before_prefill="x"
    )
    assert wire.layout_in(wire.unpack(wire.pack(wire.layout_out(layout))[4:])) == layout


@pytest.mark.parametrize(
    "change",
    [
        {"thinking_start": "x" * 5000},
        {"thinking_start": 5},
        {"thinks": "yes"},
        {"preserved_tokens": ["x"] * 100},
        {"preserved_tokens": "x"},
        {"call_syntax": "other"},
        {"json": 3},
        {"literals": {"quote": "'", "text": "(a+)+"}},
        {"more": 1},
    ],
)
def test_a_strange_form_is_not_believed(change):
    with pytest.raises(wire.InvalidAnswerError):
        wire.layout_in(wire.layout_out(OutputLayout(name="derived")) | change)


async def test_a_template_that_was_read_beforehand_blocks_no_thread(sandbox, monkeypatch):
    """Threads are shared by all requests; reading a long template in a worker takes its time."""
    good, bad = "{{ .Tools }}" + " " * 9000, "{{ .Tools " + " " * 9000
    await sandbox.prefetch_facts(good)
    await sandbox.prefetch_facts(bad)
    monkeypatch.setattr("asyncio.run_coroutine_threadsafe", None)
    assert (await asyncio.to_thread(sandbox.facts, good)).uses == {"tools", "response"}
    with pytest.raises(TemplateError, match="unclosed action"):
        await asyncio.to_thread(sandbox.facts, bad)


async def test_a_thread_reads_a_long_template_in_a_worker(sandbox):
    text = "{{ .Tools }}" + " " * 9000
    assert (await asyncio.to_thread(sandbox.facts, text)).uses == {"tools", "response"}
    with pytest.raises(TemplateLimitError):
        await asyncio.to_thread(sandbox.facts, "x" * 300_000)
