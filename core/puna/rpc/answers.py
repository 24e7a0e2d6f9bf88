"""Translation of answers from dataclasses of puna.serving to protobuf messages."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from puna.backend import TokenLogprob
from puna.go.json import replace_lone_surrogates
from puna.messages import ToolCall, ToolCallDelta
from puna.serving.answers import ChoiceDone, Delta, Done, Event, LogprobWithText, Progress, Timings, Usage
from puna_client.v1 import chat_pb2, generate_pb2, message_pb2, usage_pb2

Streamed = TypeVar("Streamed", chat_pb2.StreamChatResponse, generate_pb2.StreamGenerateResponse)
TOOL_CALLS: Final = "tool_calls"
"""The reason of an answer with tool calls. In puna.serving it is "stop", as in Ollama."""
CANCELLED: Final = "cancelled"
"""The reason of an answer that CancelRequests ended. puna.serving has no such end: it is closed."""
# The core's words are Ollama's. The wire has an enum, so that clients in typed languages need not compare texts.
_REASONS: Final = {
    "stop": usage_pb2.FINISH_REASON_STOP,
    "length": usage_pb2.FINISH_REASON_LENGTH,
    "load": usage_pb2.FINISH_REASON_LOADED,
    "unload": usage_pb2.FINISH_REASON_UNLOADED,
    CANCELLED: usage_pb2.FINISH_REASON_CANCELLED,
    TOOL_CALLS: usage_pb2.FINISH_REASON_TOOL_CALLS,
}


def finish_reason(reason: str) -> "usage_pb2.FinishReason.ValueType":
    """Return the reason why an answer ended, by the core's name for it."""
    return _REASONS.get(reason, usage_pb2.FINISH_REASON_UNSPECIFIED)


def progress(event: Progress) -> usage_pb2.Progress:
    """Return a progress event as a message."""
    if event.phase == "queued":
        return usage_pb2.Progress(queued=usage_pb2.Progress.Queued(position=event.position))
    if event.phase == "loading":
        loading = usage_pb2.Progress.Loading(
            fraction=event.fraction, done_bytes=event.done_bytes, total_bytes=event.total_bytes
        )
        return usage_pb2.Progress(loading=loading)
    return usage_pb2.Progress(
        prefill=usage_pb2.Progress.Prefill(done_tokens=event.done_tokens, total_tokens=event.total_tokens)
    )


def fill_generate_delta(message: generate_pb2.GenerateDelta, delta: Delta) -> None:
    """Write a completion's delta into an empty message."""
    # Every token passes here. Setting a field takes less than half as long as passing it to a constructor.
    if delta.text:
        message.text = replace_lone_surrogates(delta.text)
    if delta.thinking:
        message.thinking = replace_lone_surrogates(delta.thinking)
    if delta.tool_calls:
        message.tool_calls.extend(map(tool_call, delta.tool_calls))
    if delta.logprobs:
        message.logprobs.extend(map(logprob, delta.logprobs))
    if delta.choice:
        message.choice = delta.choice


def fill_chat_delta(message: chat_pb2.ChatDelta, delta: Delta) -> None:
    """Write a chat's delta into an empty message."""
    if delta.text:
        message.content = replace_lone_surrogates(delta.text)
    if delta.thinking:
        message.thinking = replace_lone_surrogates(delta.thinking)
    if delta.tool_call_deltas:
        message.tool_call_deltas.extend(map(tool_call_delta, delta.tool_call_deltas))
    if delta.tool_calls:
        message.tool_calls.extend(map(tool_call, delta.tool_calls))
    if delta.logprobs:
        message.logprobs.extend(map(logprob, delta.logprobs))
    if delta.choice:
        message.choice = delta.choice


def filled(
    message: Streamed,
    events: Sequence[Event],
    fill_delta: Callable[[Any, Delta], None],
    end: Callable[[Done], Any],
) -> Streamed:
    """Add a batch of events to a message of a stream, and return it."""
    for event in events:
        if isinstance(event, Delta):
            fill_delta(message.deltas.add(), event)
        elif isinstance(event, Progress):
            # A message keeps the last progress only. Older ones are out of date.
            message.progress.CopyFrom(progress(event))
        elif isinstance(event, ChoiceDone):
            message.choice_finishes.append(choice_finish(event))
        else:
            # The text or the calls that were held back to the end are a delta like any other.
            if event.delta != Delta():
                fill_delta(message.deltas.add(), event.delta)
            message.done.CopyFrom(end(event))
    return message


def generate_done(done: Done) -> generate_pb2.GenerateDone:
    """Return the end of a completion's stream."""
    return generate_pb2.GenerateDone(
        completes_delta=done.delta != Delta(),
        finish=finish(done),
        # A message around the list tells an empty context from a missing one.
        context=usage_pb2.TokenIds(ids=done.context) if done.context is not None else None,
        rendered=rendered(done),
    )


def chat_done(done: Done) -> chat_pb2.ChatDone:
    """Return the end of a chat's stream."""
    return chat_pb2.ChatDone(completes_delta=done.delta != Delta(), finish=finish(done), rendered=rendered(done))


def full_generate_response(deltas: Iterable[Delta], done: Done) -> generate_pb2.GenerateResponse:
    """Return a completion that is not streamed."""
    if done.choices:
        choices = [_generate_choice(joined(own), end) for own, end in _by_choice(deltas, done)]
        return generate_pb2.GenerateResponse(choices=choices, finish=finish(done))
    # The text that was held back to the end is part of the answer.
    delta = joined((*deltas, done.delta))
    return generate_pb2.GenerateResponse(
        text=replace_lone_surrogates(delta.text),
        thinking=replace_lone_surrogates(delta.thinking),
        tool_calls=map(tool_call, delta.tool_calls),
        logprobs=map(logprob, delta.logprobs),
        finish=finish(done),
        context=usage_pb2.TokenIds(ids=done.context) if done.context is not None else None,
        rendered=rendered(done),
    )


def full_chat_response(deltas: Iterable[Delta], done: Done) -> chat_pb2.ChatResponse:
    """Return a chat's answer that is not streamed."""
    if done.choices:
        choices = [
            chat_pb2.ChatChoice(
                message=_said(delta := joined(own)), logprobs=map(logprob, delta.logprobs), finish=choice_finish(end)
            )
            for own, end in _by_choice(deltas, done)
        ]
        return chat_pb2.ChatResponse(choices=choices, finish=finish(done))
    delta = joined((*deltas, done.delta))
    return chat_pb2.ChatResponse(
        message=_said(delta),
        logprobs=map(logprob, delta.logprobs),
        finish=finish(done),
        rendered=rendered(done),
    )


def _generate_choice(delta: Delta, end: ChoiceDone) -> generate_pb2.GenerateChoice:
    return generate_pb2.GenerateChoice(
        text=replace_lone_surrogates(delta.text),
        thinking=replace_lone_surrogates(delta.thinking),
        tool_calls=map(tool_call, delta.tool_calls),
        logprobs=map(logprob, delta.logprobs),
        finish=choice_finish(end),
    )


def _said(delta: Delta) -> message_pb2.ChatMessage:
    return message_pb2.ChatMessage(
        role="assistant",
        content=replace_lone_surrogates(delta.text),
        thinking=replace_lone_surrogates(delta.thinking),
        tool_calls=map(tool_call, delta.tool_calls),
    )


def _by_choice(deltas: Iterable[Delta], done: Done) -> list[tuple[list[Delta], ChoiceDone]]:
    """Return the deltas of each of several answers, with its end."""
    own: list[list[Delta]] = [[] for _ in done.choices]
    for delta in deltas:
        own[delta.choice].append(delta)
    return list(zip(own, done.choices, strict=True))


def choice_finish(end: ChoiceDone) -> usage_pb2.ChoiceFinish:
    """Return the end of one of several answers as a message."""
    return usage_pb2.ChoiceFinish(
        choice=end.choice,
        reason=_REASONS[TOOL_CALLS if end.called and end.reason == "stop" else end.reason],
        stop_sequence=end.stop_sequence,
        output_tokens=end.usage.output_tokens,
        thinking_tokens=end.usage.thinking_tokens,
    )


def joined(deltas: Iterable[Delta]) -> Delta:
    """Return the concatenation of deltas."""
    parts = list(deltas)
    return Delta(
        text="".join(each.text for each in parts),
        thinking="".join(each.thinking for each in parts),
        tool_calls=tuple(call for each in parts for call in each.tool_calls),
        logprobs=tuple(entry for each in parts for entry in each.logprobs),
    )


def finish(done: Done) -> usage_pb2.Finish | None:
    """Return reason, usage and timings of an answer, or None if no sequence ran."""
    # A rendered prompt was not run, so it has no counts.
    if not done.reason:
        return None
    return usage_pb2.Finish(
        reason=_REASONS.get(done.reason, usage_pb2.FINISH_REASON_STOP),
        usage=usage(done.usage),
        timings=timings(done.timings),
        stop_sequence=done.stop_sequence,
    )


def rendered(done: Done) -> usage_pb2.RenderedPrompt | None:
    """Return the rendered prompt of a request with render_only, else None."""
    if done.rendered is None:
        return None
    return usage_pb2.RenderedPrompt(
        text=replace_lone_surrogates(done.rendered.text), image_count=done.rendered.image_count
    )


def usage(counts: Usage) -> usage_pb2.Usage:
    """Return token counts as a message."""
    return usage_pb2.Usage(
        prompt_tokens=counts.prompt_tokens,
        cached_prompt_tokens=counts.cached_prompt_tokens,
        output_tokens=counts.output_tokens,
        truncated_tokens=counts.truncated_tokens,
        draft_tokens=counts.draft_tokens,
        accepted_draft_tokens=counts.accepted_draft_tokens,
        thinking_tokens=counts.thinking_tokens,
    )


def timings(times: Timings) -> usage_pb2.Timings:
    """Return durations as a message. Zero durations stay unset."""
    message = usage_pb2.Timings()
    for field, nanoseconds in (
        (message.total, times.total_ns),
        (message.load, times.load_ns),
        (message.prefill, times.prompt_eval_ns),
        (message.decode, times.eval_ns),
        (message.queue, times.queue_ns),
    ):
        # An unset duration tells "did not happen" from "took no time".
        if nanoseconds:
            field.FromNanoseconds(nanoseconds)
    return message


def tool_call(call: ToolCall) -> message_pb2.ToolCall:
    """Return a tool call as a message."""
    return message_pb2.ToolCall(
        id=call.id,
        index=call.index,
        name=replace_lone_surrogates(call.name),
        arguments_json=replace_lone_surrogates(call.arguments),
    )


def tool_call_delta(delta: ToolCallDelta) -> message_pb2.ToolCallDelta:
    """Return a part of a tool call as a message."""
    return message_pb2.ToolCallDelta(
        index=delta.index,
        id=delta.id,
        name=replace_lone_surrogates(delta.name),
        arguments_json=replace_lone_surrogates(delta.arguments),
    )


def logprob(entry: TokenLogprob) -> usage_pb2.TokenLogprob:
    """Return a token with its log-probability. Minus infinity becomes the least 32-bit float, which JSON can hold."""
    return usage_pb2.TokenLogprob(
        # A token may hold a part of a character. `raw` has its bytes, and `text` is for reading.
        text=entry.raw.decode(errors="replace"),
        raw=entry.raw,
        token_id=entry.token_id,
        logprob=max(entry.logprob, -3.4028234663852886e38),
        top=map(logprob, entry.top),
        sent_text=replace_lone_surrogates(entry.piece) if isinstance(entry, LogprobWithText) else None,
    )
