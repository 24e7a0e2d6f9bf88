"""A chat's answer as a sequence of parts, from which the OpenAI and Anthropic routes write their own formats."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from puna_client.v1 import chat_pb2, message_pb2, usage_pb2
from puna_rest.translate.messages import done_reason

T = TypeVar("T")


# Not frozen: one is made for each token, and a frozen one takes half a microsecond more of five.
@dataclass(slots=True)
class Part:
    """The content of one line of Ollama's own stream."""

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[message_pb2.ToolCall, ...] = ()
    tool_call_deltas: tuple[message_pb2.ToolCallDelta, ...] = ()
    """Parts of arguments, which come before the call that they belong to."""
    logprobs: tuple[usage_pb2.TokenLogprob, ...] = ()
    finish: usage_pb2.Finish | None = None
    """Set in the last part, except when the prompt was only rendered."""
    rendered: usage_pb2.RenderedPrompt | None = None
    choice: int = 0
    """Index of the answer to which it belongs, if there are several."""
    ended: usage_pb2.ChoiceFinish | None = None
    """Set in the last part of one of several answers."""

    @property
    def reason(self) -> str:
        """The finish reason; empty before the end."""
        end = self.ended if self.ended is not None else self.finish
        return done_reason(end) if end is not None else ""

    @property
    def usage(self) -> usage_pb2.Usage:
        """Token counts; zeros before the last part."""
        return self.finish.usage if self.finish is not None else usage_pb2.Usage()


def parts(message: chat_pb2.StreamChatResponse, *, call_deltas: bool = False) -> Iterator[Part]:
    """Return the parts of one message of the stream. Raises RestError for an answer that was cancelled.

    `call_deltas`: whether the request asked for parts of tool calls. Looking for them costs each token some time.
    """
    deltas, last = with_end(message.deltas, completes=message.done.completes_delta)
    for delta in deltas:
        yield _part(delta, call_deltas=call_deltas)
    for end in message.choice_finishes:
        yield Part(choice=end.choice, ended=end)
    if message.HasField("done"):
        done = message.done
        done_reason(done.finish)
        rendered = done.rendered if done.HasField("rendered") else None
        ended = done.finish if rendered is None else None
        yield _part(last or chat_pb2.ChatDelta(), ended, rendered, call_deltas=call_deltas)


def with_end(deltas: Sequence[T], *, completes: bool) -> tuple[Sequence[T], T | None]:
    """Return the deltas that have a line of their own, and the one that stands in the line of the end, if any does."""
    return (deltas[:-1], deltas[-1]) if completes and deltas else (deltas, None)


def full_choices(message: chat_pb2.ChatResponse) -> list[Part]:
    """Return unstreamed answers as one part each."""
    if not message.choices:
        return [full_answer(message)]
    return [
        Part(
            content=each.message.content,
            thinking=each.message.thinking,
            tool_calls=tuple(each.message.tool_calls),
            logprobs=tuple(each.logprobs),
            choice=each.finish.choice,
            ended=each.finish,
        )
        for each in message.choices
    ]


def full_answer(message: chat_pb2.ChatResponse) -> Part:
    """Return an unstreamed answer as one part. Raises RestError for an answer that was cancelled."""
    done_reason(message.finish)
    rendered = message.rendered if message.HasField("rendered") else None
    said = message.message
    return Part(
        content=said.content,
        thinking=said.thinking,
        tool_calls=tuple(said.tool_calls),
        logprobs=tuple(message.logprobs),
        finish=message.finish if rendered is None else None,
        rendered=rendered,
    )


def _part(
    delta: chat_pb2.ChatDelta,
    finish: usage_pb2.Finish | None = None,
    rendered: usage_pb2.RenderedPrompt | None = None,
    *,
    call_deltas: bool,
) -> Part:
    return Part(
        content=delta.content,
        thinking=delta.thinking,
        tool_calls=tuple(delta.tool_calls),
        tool_call_deltas=tuple(delta.tool_call_deltas) if call_deltas else (),
        logprobs=tuple(delta.logprobs),
        finish=finish,
        rendered=rendered,
        choice=delta.choice,
    )
