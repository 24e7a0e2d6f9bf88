import asyncio
import json
import math
import time
from contextlib import aclosing

import pytest
from tests.core.serving.asking import answered, parts, prompted, until

from puna import errors
from puna.backend import Finish, InvalidRequestError, Prefill
from puna.messages import Think
from puna.serving.answers import Delta, Progress
from puna.serving.requests import OutputConstraint


async def ask(serving, *args, **kwargs):
    return await answered(serving.generate(prompted(*args, **kwargs)))


async def test_pieces_come_one_by_one(serving, backend):
    backend.play("Hel", "lo")
    deltas, done = await ask(serving, "plain", "a")
    assert deltas == [Delta(text="Hel"), Delta(text="lo")]
    assert (done.reason, done.delta) == ("stop", Delta())
    assert backend.requests[0].prompt == "a"


async def test_without_any_template_the_prompt_stays_as_it_is(serving, backend):
    await ask(serving, "bare", "a", system="lost, as in Ollama")
    assert backend.requests[0].prompt == "a"


async def test_counts_and_times(serving, backend):
    backend.play("Hi")
    start = time.time_ns() - 5_000_000
    _, done = await ask(serving, "plain", "abc", start_ns=start)
    assert (done.usage.prompt_tokens, done.usage.output_tokens) == (3, 2)
    assert (done.timings.prompt_eval_ns, done.timings.eval_ns) == (5, 7)
    assert 5_000_000 <= done.timings.load_ns <= done.timings.total_ns


async def test_context_is_prompt_and_answer(serving, backend):
    backend.play("b")
    _, done = await ask(serving, "plain", "a")
    assert done.context == (ord("a") + 3, ord("b") + 3)


async def test_context_goes_in_front_and_preset_messages_stay_out(serving, backend):
    await ask(serving, "talker", "a", context=(ord("h") + 3, ord("i") + 3))
    assert backend.requests[0].prompt == "hi[user]a"


async def test_context_of_tokens_that_are_none(serving):
    with pytest.raises(errors.InvalidTokenError):
        await ask(serving, "plain", "a", context=(9999,))


class TestOrderOfChecks:
    """Each case breaks the rule that it names and all later ones."""

    @pytest.mark.parametrize(
        ("model", "fields", "error", "text"),
        [
            ("", {"top_logprobs": 21}, errors.InvalidRequestError, "top_logprobs must be between 0 and 20"),
            ("", {}, errors.ModelNotFoundError, "model '' not found"),
            ("  ", {}, errors.ModelNotFoundError, "model '  ' not found"),
            ("a b", {}, errors.InvalidModelNameError, "invalid model name"),
            ("m:cloud:local", {}, errors.InvalidRequestError, 'use either :local or :cloud, not both: "m:cloud:local"'),
            ("m:cloud", {}, errors.CloudDisabledError, "ollama cloud is disabled: remote model is unavailable"),
            ("nothere", {}, errors.ModelNotFoundError, "model 'nothere' not found"),
            (
                "embedder",
                {"raw": True, "system": "s", "think": Think(on=True)},
                errors.InvalidRequestError,
                "raw mode does not support template, system, or context",
            ),
            (
                "embedder",
                {"think": Think(on=True)},
                errors.CapabilityMissingError,
                '"embedder" does not support thinking',
            ),
            ("embedder", {"suffix": "x"}, errors.CapabilityMissingError, '"embedder" does not support generate'),
            (
                "plain",
                {"suffix": "x", "values": {"top_k": "x"}},
                errors.CapabilityMissingError,
                "registry.ollama.ai/library/plain:latest does not support insert",
            ),
            (
                "plain",
                {"values": {"top_k": "x"}, "constraint": OutputConstraint("json_schema", "3")},
                errors.OptionTypeError,
                'option "top_k" must be of type integer',
            ),
            (
                "plain",
                {"constraint": OutputConstraint("json_schema", '"xml"'), "template": "{{ .Prompt"},
                errors.TemplateError,
                "template: :1: unclosed action",
            ),
            (
                "plain",
                {"constraint": OutputConstraint("json_schema", '"xml"')},
                errors.InvalidFormatError,
                'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object',
            ),
        ],
    )
    async def test_it(self, serving, model, fields, error, text):
        with pytest.raises(error) as raised:
            await ask(serving, model, "a", **fields)
        assert str(raised.value) == text

    async def test_a_load_that_fails_comes_before_a_bad_format(self, serving, backend):
        backend.load_error = InvalidRequestError("no such file")
        with pytest.raises(errors.LoadFailedError):
            await ask(serving, "plain", "a", constraint=OutputConstraint("json_schema", "3"))


async def test_names_without_case_and_with_a_suffix(serving, backend):
    backend.play("a")
    deltas, _ = await ask(serving, " PLAIN:Latest:local ", "a")
    assert parts(deltas) == ["a"]


async def test_an_empty_prompt_loads(serving, backend):
    deltas, done = await ask(
        serving, "plain", "", values={"num_ctx": 99}, constraint=OutputConstraint("json_schema", "3")
    )
    assert (deltas, done.reason) == ([], "load")
    assert done.timings.total_ns == 0
    assert backend.requests == []
    assert [entry.name for entry in serving.loaded()] == ["plain:latest"]


async def test_an_empty_prompt_unloads_without_any_check(serving, backend):
    await ask(serving, "plain", "")
    _, done = await ask(serving, "plain", "", keep_alive=0.0, values={"num_ctx": "x"})
    assert done.reason == "unload"
    assert serving.loaded() == []
    _, done = await ask(serving, "embedder", "", keep_alive=0.0)
    assert done.reason == "unload"


async def test_keep_alive_reaches_the_pool(serving):
    await ask(serving, "plain", "", keep_alive=math.inf)
    (entry,) = serving.loaded()
    assert entry.expires_at_ns > time.time_ns() + 10**18


async def test_rendering_only_runs_nothing(serving, backend):
    deltas, done = await ask(serving, "talker", "a", system="S", render_only=True)
    assert (deltas, done.reason) == ([], "")
    assert (done.rendered.text, done.rendered.image_count) == ("[system]S[user]a", 0)
    assert backend.requests == []


async def test_model_parameters_then_request_options(serving, backend):
    await ask(serving, "full", "a", values={"temperature": 0.25, "seed": 7, "num_keep": 9, "typical_p": 0})
    request = backend.requests[0]
    assert (request.sampling.temperature, request.sampling.seed, request.max_tokens) == (0.25, 7, 3)
    assert (request.stop, request.keep_tokens, request.sampling.typical_p) == (("END",), 9, 1.0)


@pytest.mark.parametrize(("asked", "limit"), [(-1, 640), (-2, 640), (641, 640), (640, 640), (0, 0), (5, 5)])
async def test_how_many_tokens_at_most(serving, backend, asked, limit):
    await ask(serving, "plain", "a", values={"num_predict": asked, "num_ctx": 64})
    assert backend.requests[0].max_tokens == limit


async def test_the_limit_is_told(serving, backend):
    backend.play("a", "b", "c")
    deltas, done = await ask(serving, "plain", "a", values={"num_predict": 2})
    assert (parts(deltas), done.reason) == (["a", "b"], "length")


async def test_a_system_message_of_the_request_wins(serving, backend):
    await ask(serving, "full", "a")
    await ask(serving, "full", "a", system="S")
    assert [each.prompt for each in backend.requests] == ["[system]Be brief.[user]a", "[system]S[user]a"]


async def test_raw_prompts_are_left_alone_and_bring_no_context(serving, backend):
    _, done = await ask(serving, "full", "a", raw=True)
    assert backend.requests[0].prompt == "a"
    assert done.context is None


async def test_token_ids_are_used_as_they_are(serving, backend):
    await ask(serving, "plain", (5, 6), raw=True)
    assert backend.requests[0].prompt == (5, 6)


async def test_a_template_for_once(serving, backend):
    await ask(serving, "full", "a", template="T:{{ .System }}:{{ .Prompt }}")
    assert backend.requests[0].prompt == "T:Be brief.:a"


async def test_filling_a_gap(serving, backend):
    await ask(serving, "fill", "a", suffix="z")
    assert backend.requests[0].prompt == "<PRE>a<SUF>z"


async def test_thinking_answers_every_piece(serving, backend):
    backend.play("<think>", "\nLet me", " see", "</think>", "\n\n", "42")
    deltas, _ = await ask(serving, "thinker", "a")
    assert parts(deltas) == [None, "/Let me/", "/ see/", None, None, "42"]


async def test_thinking_off_leaves_the_tags(serving, backend):
    backend.play("<think>", "x")
    deltas, _ = await ask(serving, "thinker", "a", think=Think(on=False))
    assert parts(deltas) == ["<think>", "x"]


async def test_thinking_if_possible(serving, backend):
    backend.play("x")
    deltas, _ = await ask(serving, "plain", "a", think=Think(on=True), think_if_possible=True)
    assert parts(deltas) == ["x"]


async def test_logprobs(serving, backend):
    backend.play("a")
    deltas, _ = await ask(serving, "plain", "a", logprobs=True, top_logprobs=2)
    assert [(each.raw, len(each.top)) for each in deltas[0].logprobs] == [(b"a", 2)]
    await ask(serving, "plain", "a", top_logprobs=2)
    assert [each.top_logprobs for each in backend.requests] == [2, None]


async def test_formats(serving, backend):
    await ask(serving, "plain", "a", constraint=OutputConstraint("json_object"))
    await ask(serving, "plain", "a", constraint=OutputConstraint("json_schema", ' {"type": "string"} '))
    kinds = [(each.constraint.kind, each.constraint.text) for each in backend.requests]
    assert kinds == [("json_schema", '{"type":"object"}'), ("json_schema", '{"type": "string"}')]


async def test_a_form_that_cannot_be_enforced(serving, backend):
    backend.play(InvalidRequestError("uniqueItems cannot be enforced"))
    with pytest.raises(errors.UnsupportedConstraintError, match="uniqueItems"):
        await ask(serving, "plain", "a", constraint=OutputConstraint("json_schema", "{}"))


async def test_a_model_that_repeats_itself_is_ended(serving, backend):
    backend.play(*[" spam"] * 50)
    deltas, done = await ask(serving, "plain", "abc")
    assert parts(deltas) == [" spam"] * 31
    assert (done.reason, done.usage.prompt_tokens, done.usage.output_tokens) == ("stop", 3, 32)
    assert backend.running == 0


async def test_a_sequence_without_an_end_gets_one(serving, backend):
    backend.play("a", Finish(reason="length", stop_sequence="", prompt_tokens=1, output_tokens=1))
    _, done = await ask(serving, "plain", "a")
    assert done.reason == "length"


async def test_news_of_the_prompt(serving, backend):
    backend.play(Prefill(1, 2), "a")
    async with aclosing(serving.generate(prompted("plain", "a"))) as events:
        first = await anext(events)
    assert first == Progress(phase="prefill", done_tokens=1, total_tokens=2)


async def test_news_of_loading(serving):
    heard = []
    await answered(serving.generate(prompted("plain", "a"), heard.append))
    assert Progress(phase="loading", fraction=0.5) in heard


class TestLongPrompts:
    async def test_the_middle_is_cut(self, serving, backend):
        text = "".join(chr(65 + index % 26) for index in range(100))
        _, done = await ask(serving, "plain", text, values={"num_ctx": 64, "num_keep": 4})
        prompt = backend.requests[0].prompt
        assert len(prompt) == 64 - (64 - 4) // 2
        assert bytes(token - 3 for token in prompt).decode() == text[:4] + text[-30:]
        assert done.usage.truncated_tokens == 100 - 34

    async def test_what_fits_is_sent_as_text(self, serving, backend):
        await ask(serving, "plain", "x" * 63, values={"num_ctx": 64})
        assert backend.requests[0].prompt == "x" * 63

    async def test_without_shift_it_is_refused(self, serving):
        with pytest.raises(errors.ContextOverflowError, match="longer than the context length currently available"):
            await ask(serving, "plain", "x" * 64, values={"num_ctx": 64}, shift=False)

    async def test_without_truncation_the_backend_refuses_it(self, serving):
        with pytest.raises(errors.ContextOverflowError) as raised:
            await ask(serving, "plain", "x" * 70, values={"num_ctx": 64}, truncate=False)
        assert json.loads(str(raised.value))["error"]["n_prompt_tokens"] == 70

    async def test_short_prompts_are_not_counted(self, serving, backend):
        await ask(serving, "plain", "x" * 60, values={"num_ctx": 64}, raw=True)
        assert backend.tokenized == []


async def test_a_beginning_that_the_tokenizer_adds_is_cut_once(serving, backend):
    backend.facts = {"adds_bos": True, "bos_text": "<s>"}
    await ask(serving, "plain", "<s><s>a")
    assert backend.requests[0].prompt == "<s>a"


async def test_pictures_for_a_blind_model(serving, backend):
    with pytest.raises(errors.InvalidRequestError, match="does not support multimodal requests"):
        await ask(serving, "plain", "a", media=(b"png",))


async def test_pictures_for_a_seeing_model(serving, backend):
    backend.facts = {"vision": True}
    await ask(serving, "talker", "a", media=(b"png", b"jpg"))
    assert backend.requests[0].prompt == "[user][img-0][img-1]a"
    assert backend.requests[0].media == (b"png", b"jpg")


class TestNamedParsers:
    async def test_calls_come_with_the_end_and_without_ids(self, serving, backend):
        backend.play("Look: ", "<tool_call><function=f><parameter=a>1</parameter></function></tool_call>")
        deltas, done = await ask(serving, "coder", "a")
        assert all(not delta.tool_calls for delta in deltas)
        assert [(call.name, call.id) for call in done.delta.tool_calls] == [("f", "")]

    async def test_a_renderer_that_nobody_knows_matters_where_it_renders(self, serving, backend):
        await ask(serving, "unrenderable", "a", raw=True)
        assert backend.requests[0].prompt == "a"
        with pytest.raises(errors.UnknownRendererError):
            await ask(serving, "unrenderable", "a")


class TestLoading:
    async def test_automatic_values_are_marked(self, serving, backend, settings):
        await ask(serving, "plain", "a")
        assert backend.specs[0].context_length == 4096
        await ask(serving, "plain", "a")
        await ask(serving, "plain", "a", values={"num_ctx": 4096})
        assert len(backend.specs) == 1

    async def test_another_context_loads_anew(self, serving, backend):
        await ask(serving, "plain", "a")
        await ask(serving, "plain", "a", values={"num_ctx": 64})
        assert [each.context_length for each in backend.specs] == [4096, 64]
        assert backend.closed == 1

    async def test_names_of_one_file_share_it(self, serving, backend):
        await ask(serving, "plain", "a")
        await ask(serving, "talker", "a")
        assert len(backend.specs) == 1

    @pytest.mark.parametrize(("asked", "got"), [(1, 4), (-5, 4), (10**30, 8192)])
    async def test_strange_contexts(self, serving, backend, asked, got):
        await ask(serving, "plain", "", values={"num_ctx": asked})
        assert serving.loaded()[0].context_length == got

    async def test_options_of_the_backend(self, serving, backend):
        await ask(serving, "plain", "", backend_options={"played": {"a": 1}, "another": {"b": 2}})
        assert backend.specs[0].backend_options == {"a": 1}

    async def test_an_option_that_the_backend_does_not_declare_loads_nothing(self, serving, backend):
        await ask(serving, "plain", "")
        with pytest.raises(errors.InvalidRequestError, match="backend 'played' has no option 'lib'"):
            await ask(serving, "plain", "", backend_options={"played": {"lib": "/tmp/x.so"}})
        assert (len(backend.specs), backend.closed) == (1, 0)


class TestCancelling:
    async def test_while_it_writes(self, serving, backend):
        backend.play("a", 60)
        async with aclosing(serving.generate(prompted("plain", "a"))) as events:
            assert (await anext(events)).text == "a"
            assert backend.running == 1
        assert backend.running == 0

    @pytest.mark.parametrize("steps", [(60,), (Prefill(1, 9), 60)])
    async def test_while_the_prompt_is_evaluated(self, serving, backend, steps):
        backend.play(*steps)
        task = asyncio.create_task(ask(serving, "plain", "a"))
        await until(lambda: backend.running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert backend.running == 0

    async def test_while_it_loads(self, serving, backend):
        backend.load_seconds = 60
        task = asyncio.create_task(ask(serving, "plain", "a"))
        await until(lambda: backend.specs)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        backend.load_seconds = 0
        await ask(serving, "plain", "")
        assert len(serving.loaded()) == 1


async def test_pictures_of_a_completion_are_marked_before_the_models_own_template(serving):
    _, done = await ask(serving, "native", "x [img] y", media=(b"png", b"jpg"), render_only=True)
    assert (done.rendered.text, done.rendered.image_count) == ("<user>[img-1]x [img-0] y", 2)
