import pytest

from puna.backend import TokenLogprob
from puna.messages import ToolCall
from puna.rpc import answers
from puna.serving.answers import Delta, Done, LogprobWithText, Progress, Rendered, Timings, Usage
from puna_client.v1 import chat_pb2, generate_pb2, usage_pb2

CALL = ToolCall(id="call_1", index=2, name="f", arguments='{"a":1}')
ENTRY = TokenLogprob(
    token_id=7, raw=b"\xc3", logprob=float("-inf"), top=(TokenLogprob(token_id=8, raw=b"b", logprob=-1.0),)
)


@pytest.mark.parametrize(
    ("event", "which", "fields"),
    [
        (Progress(phase="queued", position=3), "queued", {"position": 3}),
        (Progress(phase="loading", fraction=0.5), "loading", {"fraction": 0.5, "total_bytes": 0}),
        (
            Progress(phase="loading", done_bytes=2, total_bytes=9),
            "loading",
            {"fraction": 0.0, "done_bytes": 2, "total_bytes": 9},
        ),
        (
            Progress(phase="prefill", done_tokens=2, total_tokens=9),
            "prefill",
            {"done_tokens": 2, "total_tokens": 9},
        ),
    ],
)
def test_progress_has_one_kind_with_its_numbers(event, which, fields):
    message = answers.progress(event)
    assert message.WhichOneof("phase") == which
    assert {name: getattr(getattr(message, which), name) for name in fields} == fields


def test_a_delta_becomes_text_or_content():
    delta = Delta(text="a\ud800", thinking="t\udc00", tool_calls=(CALL,), logprobs=(ENTRY,))
    completion, chat = generate_pb2.GenerateDelta(), chat_pb2.ChatDelta()
    answers.fill_generate_delta(completion, delta)
    answers.fill_chat_delta(chat, delta)
    assert (completion.text, completion.thinking) == (chat.content, chat.thinking) == ("a\ufffd", "t\ufffd")
    for message in (completion, chat):
        (call,) = message.tool_calls
        assert (call.id, call.index, call.name, call.arguments_json) == ("call_1", 2, "f", '{"a":1}')
        assert message.logprobs[0].token_id == 7


def test_a_log_probability_is_a_number_that_json_can_hold():
    message = answers.logprob(ENTRY)
    assert message.logprob == pytest.approx(-3.4028234663852886e38)
    assert (message.text, message.raw, message.sent_text) == ("\ufffd", b"\xc3", "")
    assert [(each.text, each.logprob) for each in message.top] == [("b", -1.0)]


def test_the_text_that_was_sent_for_a_token_is_told_where_it_differs():
    entry = LogprobWithText(token_id=7, raw=b"\xc3", logprob=-1.0, top=(), piece="")
    assert answers.logprob(entry).HasField("sent_text")
    assert not answers.logprob(ENTRY).HasField("sent_text")


def test_a_full_answer_joins_all_deltas_and_the_part_held_back_until_the_end():
    deltas = [Delta(text="a", thinking="x"), Delta(text="b", tool_calls=(CALL,), logprobs=(ENTRY,))]
    done = Done(reason="length", delta=Delta(text="c", logprobs=(ENTRY,)), context=(1, 2))
    whole = answers.full_generate_response(deltas, done)
    assert (whole.text, whole.thinking, len(whole.tool_calls), len(whole.logprobs)) == ("abc", "x", 1, 2)
    assert list(whole.context.ids) == [1, 2]
    chat = answers.full_chat_response(deltas, done)
    assert (chat.message.role, chat.message.content, chat.message.thinking) == ("assistant", "abc", "x")
    assert chat.finish.reason == whole.finish.reason == usage_pb2.FINISH_REASON_LENGTH


@pytest.mark.parametrize(
    ("reason", "name"),
    [("stop", "STOP"), ("length", "LENGTH"), ("load", "LOADED"), ("unload", "UNLOADED"), ("another", "STOP")],
)
def test_reasons(reason, name):
    assert answers.finish(Done(reason=reason)).reason == usage_pb2.FinishReason.Value(f"FINISH_REASON_{name}")


def test_a_rendered_prompt_has_no_finish():
    done = Done(rendered=Rendered("a\ud800", 2))
    for message in (answers.generate_done(done), answers.chat_done(done), answers.full_chat_response([], done)):
        assert not message.HasField("finish")
        assert (message.rendered.text, message.rendered.image_count) == ("a\ufffd", 2)
    assert not answers.generate_done(done).HasField("context")
    assert not answers.generate_done(Done(reason="stop")).HasField("rendered")


def test_an_empty_context_is_told_from_none():
    assert answers.generate_done(Done(reason="stop", context=())).HasField("context")


def test_counts_and_durations():
    counts = Usage(
        prompt_tokens=1,
        cached_prompt_tokens=2,
        output_tokens=3,
        truncated_tokens=4,
        draft_tokens=5,
        accepted_draft_tokens=6,
    )
    message = answers.usage(counts)
    assert [value for _, value in message.ListFields()] == [1, 2, 3, 4, 5, 6]
    times = answers.timings(Timings(total_ns=5_000_000_007, eval_ns=0, queue_ns=1))
    assert (times.total.ToNanoseconds(), times.queue.ToNanoseconds()) == (5_000_000_007, 1)
    assert not times.HasField("decode")
    assert not times.HasField("load")
