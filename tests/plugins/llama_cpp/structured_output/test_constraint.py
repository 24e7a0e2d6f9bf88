import asyncio
import contextlib
import json
import os
import signal
from dataclasses import replace

import pytest
from tests.e2e.server import MODELS, parents

from puna.backend import (
    BackendError,
    Constraint,
    ConstraintLimits,
    InvalidRequestError,
    ModelSpec,
    Sampling,
    SequenceRequest,
)
from puna_llama_cpp import LlamaCppBackend

ANY_OBJECT = Constraint("json_schema", '{"type": "object"}')
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "alive": {"type": "boolean"},
    },
    "required": ["name", "age", "alive"],
    "additionalProperties": False,
}


@pytest.fixture
async def chatter(load):
    return await load("chatter", context_length=1024)


async def test_a_text_that_the_model_would_write_anyway_is_allowed(load, write):
    model = await load("scripted")
    texts, end = await write(model, "e", constraint=ANY_OBJECT)
    assert texts == ['{"na', 'me": "Ada"', ', "age"', ": 36", "}"]
    assert (end.reason, end.output_tokens) == ("stop", 6)


async def test_a_model_that_wants_to_write_something_else_writes_json(load, write):
    texts, _ = await write(await load("scripted"), "a", constraint=ANY_OBJECT, max_tokens=20)
    assert texts[0].startswith("{")


@pytest.mark.parametrize("seed", range(4))
async def test_a_schema_holds_at_high_temperature_and_keeps_its_order(chatter, write, seed):
    constraint = Constraint("json_schema", json.dumps(PERSON))
    texts, end = await write(
        chatter, "hello", constraint=constraint, sampling=Sampling(temperature=1.5, seed=seed), max_tokens=400
    )
    assert end.reason == "stop"
    person = json.loads("".join(texts))
    assert list(person) == ["name", "age", "alive"]
    assert len(person["name"]) <= 8
    assert 0 <= person["age"] <= 120
    assert isinstance(person["alive"], bool)


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("regex", "(ab|cd){3}", {"ab", "cd"}),
        ("lark", 'start: ("ab" | "cd")~3', {"ab", "cd"}),
        ("gbnf", 'root ::= ("ab" | "cd") ("ab" | "cd") ("ab" | "cd")', {"ab", "cd"}),
    ],
)
async def test_other_grammars(chatter, write, kind, text, wanted):
    texts, end = await write(chatter, "hello", constraint=Constraint(kind, text))
    said = "".join(texts)
    assert (len(said), end.reason) == (6, "stop")
    assert {said[:2], said[2:4], said[4:]} <= wanted


async def test_marks_are_the_vocabularys_tokens_where_it_has_them(chatter, write):
    constraint = Constraint("lark", r'start: %mark "<|im_start|>" "<|im_start|> \" %mark" %mark "<|call|>"')
    texts, end = await write(chatter, "hello", constraint=constraint, preserved_tokens=("<|im_start|>",), max_tokens=99)
    assert (texts[0], "".join(texts[1:]), end.reason) == ("<|im_start|>", '<|im_start|> " %mark<|call|>', "stop")


@pytest.mark.parametrize(
    ("constraint", "named"),
    [
        (Constraint("json_schema", '{"type": "array", "uniqueItems": true}'), "uniqueItems"),
        (Constraint("json_schema", '{"properties": {"a": {"not": {"const": 1}}}}'), "not"),
        (Constraint("json_schema", '{"type": "string", "pattern": "(?=a)b"}'), "look-ahead"),
        (Constraint("json_schema", '{"type": "nosuch"}'), "nosuch"),
        (Constraint("json_schema", "{"), "cannot be"),
        (Constraint("gbnf", 'root ::= "a'), "GBNF"),
        (Constraint("lark", "start: nothing"), "nothing"),
        (Constraint("lark", 'start: "%json {" %json {"type": "object", "minProperties": 3}'), "minProperties"),
        (Constraint("regex", "(a"), "unclosed"),
        (Constraint("lark", "start: start"), "Lark grammar cannot be enforced: nothing satisfies it"),
        (Constraint("gbnf", "root ::= root"), "GBNF grammar cannot be enforced: nothing satisfies it"),
        (Constraint("json_schema", "[" * 100000), "nested too deeply"),
        (Constraint("json_schema", '{"items":' * 200 + "{}" + "}" * 200), "nested too deeply"),
        (Constraint("sonnet", "abab"), "sonnet"),
    ],
)
async def test_what_cannot_be_enforced_is_refused_and_named(chatter, write, constraint, named):
    with pytest.raises(InvalidRequestError, match=named) as caught:
        await write(chatter, "hello", constraint=constraint)
    assert "\n" not in str(caught.value)


TINY = ConstraintLimits(seconds=0.3, mask_seconds=0.2, memory_bytes=64 << 20)
SLOW_SCHEMA = Constraint(
    "json_schema", json.dumps({"allOf": [{"type": "integer", "multipleOf": n} for n in (997, 991, 983)]})
)
REFERENCES = {f"d{i}": {"type": "array", "items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(30000)}


@pytest.mark.parametrize(
    ("limits", "constraint", "named"),
    [
        (
            replace(TINY, memory_bytes=1 << 40),
            SLOW_SCHEMA,
            "0.3 seconds of processor time.*PUNA_MAX_CONSTRAINT_SECONDS",
        ),
        (replace(TINY, seconds=60.0), SLOW_SCHEMA, "64 MiB of memory.*PUNA_MAX_CONSTRAINT_MEMORY_BYTES"),
        (
            replace(TINY, seconds=60.0),
            Constraint("json_schema", json.dumps({"$defs": REFERENCES, "$ref": "#/$defs/d0"})),
            "nested too deeply|of memory",
        ),
    ],
)
async def test_what_takes_too_much_is_refused_by_the_limit(load, write, limits, constraint, named):
    model = await load("chatter", constraint_limits=limits)
    with pytest.raises(InvalidRequestError, match=named):
        await write(model, "hello", constraint=constraint)
    texts, end = await write(model, "hello", constraint=Constraint("regex", "ab"))
    assert ("".join(texts), end.reason) == ("ab", "stop")


async def test_memory_is_counted_for_all_constraints_together(load, write):
    model = await load("chatter", constraint_limits=replace(TINY, seconds=60.0, memory_bytes=96 << 20))
    calls = [write(model, "hello", constraint=SLOW_SCHEMA) for _ in range(4)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all("PUNA_MAX_CONSTRAINT_MEMORY_BYTES" in str(outcome) for outcome in outcomes)


async def test_a_constraint_that_nobody_waits_for_is_dropped_at_once(load, write):
    model = await load("chatter")
    await write(model, "hello", constraint=ANY_OBJECT, max_tokens=1)  # its process is there now
    server = model._constraints._server.pid
    waiting = [asyncio.create_task(write(model, "hello", constraint=SLOW_SCHEMA)) for _ in range(8)]
    await until(lambda: len(children(server)) == 8)
    for task in waiting:
        task.cancel()
    await until(lambda: not children(server))


async def test_the_process_ends_with_the_model_and_is_made_anew_if_it_dies(write):
    spec = ModelSpec(path=str(MODELS / "chatter.gguf"), threads=1)
    model = await LlamaCppBackend().load(spec, lambda done: None)
    texts, _ = await write(model, "hello", constraint=Constraint("regex", "ab"))
    first = model._constraints._server.pid
    os.kill(first, signal.SIGKILL)
    again, _ = await write(model, "hello", constraint=Constraint("regex", "ab"))
    second = model._constraints._server.pid
    assert texts == again
    assert first != second
    await model.aclose()
    assert second not in parents()


async def test_a_constraint_whose_process_dies_in_mid_answer_ends_with_an_error(load):
    model = await load("chatter", context_length=4096)
    request = SequenceRequest(prompt="hello", constraint=Constraint("regex", "[ab]{3000}"), max_tokens=4000)
    with pytest.raises(BackendError, match="cannot be followed further"):
        async for _ in model.generate(request):
            # One that has died of the signal stays in the list until its parent has waited for it.
            for pid in children(model._constraints._server.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSEGV)


async def test_a_mask_that_takes_long_delays_no_other_sequence(load, write):
    """The constrained sequence's process is stopped, as one is that computes: the other one must go on."""
    model = await load("chatter", context_length=4096, parallel=2)
    bound = SequenceRequest(prompt="hello", constraint=Constraint("regex", "[ab]{300}"), max_tokens=400)
    stopped, text = [], ""
    async for event in model.generate(bound):
        text += getattr(event, "text", "")
        if not stopped:
            stopped = children(model._constraints._server.pid)
            os.kill(stopped[0], signal.SIGSTOP)
            _, end = await asyncio.wait_for(write(model, "river", max_tokens=60), 20)
            assert end.output_tokens > 1
            os.kill(stopped[0], signal.SIGCONT)
    assert len(text) == 300
    assert set(text) <= {"a", "b"}


def children(pid):
    return [child for child, parent in parents().items() if parent == pid]


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (another process has no event)
            await asyncio.sleep(0.02)
