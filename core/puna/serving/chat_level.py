"""Answers conversations on backends that take messages.

Nothing is rendered and nothing parsed here: messages, tools, thinking, structured output and images go to the backend
as the client sent them, and its deltas are those of the answer. The backend knows its model's template, its context and
its notation of tool calls, so none of the core's rules for them applies: no message is dropped, and no text is searched
for calls. What the backend sends is checked where a client would otherwise break: the arguments of a call must be a
JSON object.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from puna.backend import ChatDelta, ChatInput, ChatMessage, ChatTool, ChatToolCall, Finish, Prefill, SequenceRequest
from puna.errors import BackendFailedError
from puna.go.json import replace_lone_surrogates as _clean
from puna.messages import Message, Think, Tool, ToolCall, ToolChoice
from puna.models.stored import StoredModel
from puna.options import Options
from puna.prompt.conversation import assemble
from puna.runtime.requirements import Lease
from puna.serving.answers import Delta, Done, Event, Progress
from puna.serving.call_deltas import call_id, whole_calls
from puna.serving.clock import Clock, usage
from puna.serving.requests import RequestOptions
from puna.serving.sampling_options import output_constraint, sampling, token_limit
from puna.serving.sequence_runner import run


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation for a backend that takes messages."""

    model: StoredModel
    messages: Sequence[Message]
    """The client's messages, without the model's own."""
    system: str = ""
    """Replaces the model's system message."""
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    tool_call_deltas: bool = False
    """Whether calls are also sent as deltas: one for each, since the backend sends complete calls."""
    think: Think | None = None
    """None: the backend decides."""
    thinking_budget: int | None = None
    options: Options
    request: RequestOptions
    preset: bool = True
    """Whether the model's own messages come first."""

    def sequence(self, context: int) -> SequenceRequest:
        """Return the sequence for a model with this context length. Raises InvalidFormatError."""
        model = self.model
        messages = assemble(model.messages if self.preset else (), self.system or model.system, self.messages)
        return SequenceRequest(
            prompt="",
            chat=ChatInput(
                messages=tuple(map(_message, messages)),
                tools=tuple(map(_tool, self.tools)),
                tool_choice=f"tool:{self.tool_choice.name}" if self.tool_choice.name else self.tool_choice.mode,
                thinking=_thinking(self.think),
                thinking_budget=self.thinking_budget,
            ),
            sampling=sampling(self.options, self.request),
            max_tokens=token_limit(self.options, context),
            stop=tuple(map(_clean, self.options.stop)),
            constraint=output_constraint(self.request.constraint),
            top_logprobs=self.request.top_logprobs if self.request.logprobs else None,
            cache_salt=self.request.cache_salt,
            priority=self.request.priority,
        )


async def answer(conversation: Conversation, lease: Lease, clock: Clock) -> AsyncGenerator[Event]:
    """Yield any number of Progress, then Deltas, then one Done. Closing the generator ends the sequence.

    Raises InvalidFormatError, and what `sequence_runner.run` raises.
    """
    sequence = conversation.sequence(lease.facts.context_length)
    # A client that turned thinking off must not get any, also where the backend cannot turn it off.
    silent = conversation.think is not None and not conversation.think.on
    count = 0
    async with aclosing(run(lease.model, sequence, guarded=False)) as events:
        async for event in events:
            if isinstance(event, ChatDelta):
                delta = _delta(event, count, silent=silent)
                count += len(delta.tool_calls)
                if conversation.tool_call_deltas:
                    delta = replace(delta, tool_call_deltas=whole_calls(delta.tool_calls))
                if delta.text or delta.thinking or delta.tool_calls or delta.logprobs:
                    yield delta
            elif isinstance(event, Finish):
                yield Done(
                    reason="length" if event.reason == "length" else "stop",
                    stop_sequence=event.stop_sequence,
                    usage=usage(event),
                    timings=clock.timings(event, lease.model.queued_ns),
                )
            elif isinstance(event, Prefill):
                yield Progress(phase="prefill", done_tokens=event.done_tokens, total_tokens=event.total_tokens)
            else:
                raise BackendFailedError(f"backend {lease.backend!r} sent text in place of a part of a message")


def _message(message: Message) -> ChatMessage:
    return ChatMessage(
        role=_clean(message.role),
        content=_clean(message.content),
        thinking=_clean(message.thinking),
        media=message.media,
        media_at=message.media_at,
        tool_calls=tuple(
            ChatToolCall(name=_clean(call.name), arguments_json=_clean(call.arguments), id=_clean(call.id))
            for call in message.tool_calls
        ),
        tool_name=_clean(message.tool_name),
        tool_call_id=_clean(message.tool_call_id),
    )


def _tool(tool: Tool) -> ChatTool:
    return ChatTool(
        name=_clean(tool.name), description=_clean(tool.description), parameters_json=_clean(tool.parameters)
    )


def _thinking(think: Think | None) -> str:
    if think is None:
        return ""
    return (think.level or "on") if think.on else "off"


def _delta(event: ChatDelta, count: int, *, silent: bool) -> Delta:
    """Return the delta of an answer that has had `count` calls so far."""
    calls = tuple(_call(call, count + place) for place, call in enumerate(event.tool_calls))
    thinking = "" if silent else event.thinking
    return Delta(text=event.content, thinking=thinking, tool_calls=calls, logprobs=event.logprobs)


def _call(call: ChatToolCall, index: int) -> ToolCall:
    """Return a call. Raises BackendFailedError if it is none, since clients read the arguments as an object."""
    try:
        whole = isinstance(json.loads(call.arguments_json or "{}"), dict)
    except (ValueError, RecursionError):
        whole = False
    if not (whole and call.name):
        raise BackendFailedError(
            "the backend sent a tool call without a name or with arguments that are no JSON object"
        )
    return ToolCall(name=call.name, arguments=call.arguments_json or "{}", index=index, id=call.id or call_id())
