"""Answering a conversation.

A demanded form applies to the answer alone, never to the thinking before it. So where a model may think, a first
sequence runs free; when its content begins it is dropped, and a second one, bound to the form, goes on from there.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from puna.backend import Constraint, Finish, Prefill, TextDelta
from puna.capabilities import PARSERS, THINKING
from puna.messages import Message, Think, Tool
from puna.prompt.builtin import call_layouts
from puna.prompt.builtin.interface import Parser
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.go_template.tool_calls import ToolCallParser
from puna.prompt.jinja import parsers
from puna.prompt.layout import OutputLayout
from puna.prompt.rendered import RenderedPrompt
from puna.prompt.tool_grammar import grammar as tool_grammar
from puna.runtime.requirements import Lease, LeaseKind
from puna.serving import answers
from puna.serving.access import (
    Access,
    OnProgress,
    ResolvedModel,
    check_capabilities,
    check_logprobs,
    options_of,
    thinking_of,
)
from puna.serving.answer_parsers import AnswerReader, plain
from puna.serving.answers import Delta, Done, Event, Progress
from puna.serving.clock import Clock, usage
from puna.serving.conversation import Conversation, assembled
from puna.serving.requests import ChatRequest
from puna.serving.sampling_options import output_constraint, shifts
from puna.serving.sequence_builder import SequenceBuilder
from puna.serving.sequence_runner import run

HARMONY_NEXT: Final = "<|end|><|start|>assistant"
"""What ends the thinking of a model that speaks gpt-oss's format."""
HARMONY_FINAL: Final = f"{HARMONY_NEXT}<|channel|>final<|message|>"
"""The same, with what begins the content."""
_SPECIAL: Final = re.compile(r"\[[^\]]*\]|<[^>]*>")


async def chat(access: Access, request: ChatRequest, on_progress: OnProgress) -> AsyncGenerator[Event]:
    """Answer with any Progress, then Deltas, then one Done. Closing it ends the sequence and gives the model back.

    The checks come in the reference's order. Errors: those of Access.find, CapabilityMissingError, OptionTypeError,
    those of ModelPool.lease, InvalidFormatError, TemplateError, ContextOverflowError, InvalidRequestError.
    """
    asked = request.options
    clock = Clock(asked.start_ns)
    check_logprobs(asked)
    access.check_constraint_size(asked, request.tools if request.tool_choice.mode == "required" else ())
    found = await access.find(request.model)
    if not request.messages and asked.keep_alive == 0:
        await access.unload(found.model)
        yield Done(reason="unload")
        return
    access.refuse_remote(found)
    think = thinking_of(found, asked)
    check_capabilities(found, "chat", ["tools"] if request.tools else [])
    options = options_of(found.model, asked)
    if found.model.mode == "native":
        access.sandbox.warm()
    kind = LeaseKind.SEQUENCE if request.messages else LeaseKind.LOAD_ONLY
    async with access.lease(found.model, options, asked, on_progress, kind) as lease:
        clock.model_ready()
        if not request.messages:
            yield Done(reason="load")
            return
        turn = await _turn(found, lease, request, think)
        if request.render_only:
            yield Done(rendered=answers.Rendered(turn.prompt.text, len(turn.prompt.media)))
            return
        constraint = output_constraint(asked.constraint)
        if constraint is None and request.tool_choice.mode == "required":
            constraint = turn.tool_call_constraint()
        builder = SequenceBuilder(
            lease=lease,
            options=options,
            request=asked,
            shift=shifts(found.model, asked),
            cuts=asked.truncate and not turn.conversation.native,
            preserved=turn.preserved,
            stops=turn.layout.stops if turn.layout else (),
            bos=turn.conversation.renderer.bos if turn.conversation.renderer else "",
        )
        async with aclosing(_answer(turn, builder, constraint, clock)) as events:
            async for event in events:
                yield event


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One turn of a conversation: what the model is told, and how its answer is read."""

    found: ResolvedModel
    conversation: Conversation
    messages: tuple[Message, ...]
    """All messages, before any truncation."""
    prompt: RenderedPrompt
    tools: Sequence[Tool]
    think: Think | None
    thinking: ThinkingParser | None
    parser: Parser | None
    must_call: bool = False
    """Whether the answer must be a call."""
    offered: Sequence[Tool] = ()
    """The tools by their own names."""
    layout: OutputLayout | None = None
    """How the model file's own template lays out answers; None where that is not in use."""

    def tool_call_constraint(self) -> Constraint | None:
        """Return the form of an answer that is a call; None where nobody knows how this model writes calls."""
        if not self.tools:
            return None
        if self.parser is not None:
            written = call_layouts.CALL_LAYOUTS.get(self.found.templates.parser_name)
            return tool_grammar.from_layout(self.tools, written, self.preserved) if written else None
        if self.layout is not None:
            return tool_grammar.from_layout(self.tools, self.layout, self.preserved)
        return tool_grammar.behind_tag(self.tools, self.found.templates.tool_tag, self.preserved)

    @property
    def preserved(self) -> tuple[str, ...]:
        """Special tokens that the parsers need to see."""
        if self.layout is not None:
            return self.layout.preserved_tokens
        if self.parser is not None:
            return tuple(self.parser.preserved_tokens)
        tag = _SPECIAL.match(self.found.templates.tool_tag) if self.tools else None
        return (tag[0],) if tag else ()

    def reader(self, *, thought: bool = False) -> AnswerReader:
        """Return a reader of the whole answer; of what follows the thinking if that is over."""
        if self.conversation.native and thought and not self.must_call:
            return plain()
        if self.layout is not None:
            return AnswerReader(parsers.parser(self.layout, self.tools, self.prompt.answer_prefix, self.think))
        if self.parser is not None:
            return AnswerReader(self.parser)
        tools = ToolCallParser(self.tools, self.found.templates.tool_tag) if self.tools else None
        thinking = None if thought else self.thinking
        return AnswerReader(GoTemplateParser(thinking, tools), splits_calls=True) if thinking or tools else plain()

    def may_think(self) -> bool:
        """Whether thinking may come before the content, and would be recognised."""
        if THINKING not in self.found.model.capabilities:
            return False
        if self.parser is not None:
            thinks = THINKING in PARSERS.get(self.found.templates.parser_name, ())
            return thinks and not (self.think is not None and not self.think.on)
        return self.conversation.native or self.thinking is not None


async def _turn(found: ResolvedModel, lease: Lease, request: ChatRequest, think: Think | None) -> ChatTurn:
    model, templates = found.model, found.templates
    tools: Sequence[Tool] = tool_grammar.offered(request.tools, request.tool_choice)
    offered = tools
    messages = assembled(model, model.messages, model.system, request.messages)
    parser = templates.parser()
    if parser is not None:
        tools = parser.init(tools, messages[-1], think)
    renderer = templates.renderer()
    conversation = Conversation(
        model=model,
        templates=templates,
        lease=lease,
        renderer=renderer,
        native=model.mode == "native",
        marks=renderer is None and model.mode != "native",
        tools=tools,
        think=think,
        truncate=request.options.truncate,
        reads=not request.render_only,
    )
    prompt = await conversation.prompt(messages, request.options.constraint, early=request.render_only)
    thinking = None
    if parser is None and not conversation.native and think is not None and think.on and templates.thinking_tags:
        opening, closing = templates.thinking_tags
        thinking = ThinkingParser(opening, closing, started=prompt.text.rstrip().endswith(opening))
    must_call = request.tool_choice.mode == "required" and request.options.constraint is None
    layout = await templates.chat_template(lease.facts).layout(tools=bool(tools)) if conversation.native else None
    return ChatTurn(
        found, conversation, tuple(messages), prompt, tools, think, thinking, parser, must_call, offered, layout
    )


async def _answer(
    turn: ChatTurn, builder: SequenceBuilder, constraint: Constraint | None, clock: Clock
) -> AsyncGenerator[Event]:
    """Run the sequences and read them."""
    prompt, reader, spent = turn.prompt, turn.reader(), 0
    if constraint is not None and turn.may_think():
        first = _ThinkingPhase(turn, builder, prompt, constraint)
        async with aclosing(first.events()) as events:
            async for event in events:
                yield event
        if first.finish is not None and first.finish.reason == "length":
            yield _done(first.finish, Delta(), builder, clock, first.cut)
            return
        prompt, reader, spent = await first.rest(), first.next_reader(), first.spent
    sequence, cut = await builder.sequence(prompt.text, prompt.media, constraint)
    async with aclosing(run(builder.lease.model, sequence, guarded=not turn.conversation.native)) as steps:
        async for step in steps:
            if isinstance(step, TextDelta):
                for delta in reader.feed(step):
                    yield delta
            elif isinstance(step, Prefill):
                yield Progress(phase="prefill", done_tokens=step.done_tokens, total_tokens=step.total_tokens)
            else:
                finish = replace(step, output_tokens=step.output_tokens + spent)
                yield _done(finish, reader.finish(), builder, clock, cut)


def _done(finish: Finish, delta: Delta, builder: SequenceBuilder, clock: Clock, cut: int) -> Done:
    return Done(
        reason="length" if finish.reason == "length" else "stop",
        delta=delta,
        stop_sequence=finish.stop_sequence,
        usage=usage(finish, cut),
        timings=clock.timings(finish, builder.lease.model.queued_ns),
    )


class _ThinkingPhase:
    """The first of two sequences: it runs until content begins."""

    def __init__(
        self, turn: ChatTurn, builder: SequenceBuilder, prompt: RenderedPrompt, constraint: Constraint
    ) -> None:
        self._turn = turn
        self._constraint = constraint
        self._builder = builder
        self._prompt = prompt
        self._thought: list[str] = []
        self._raw = ""
        self.finish: Finish | None = None
        """Set when it ended without any content."""
        self.spent = 0
        """Tokens to be counted with those of the second sequence: the reference has one sequence in native mode."""
        self.cut = 0

    async def events(self) -> AsyncGenerator[Event]:
        """Yield the thinking."""
        turn = self._turn
        reader = AnswerReader(GoTemplateParser(turn.thinking)) if turn.thinking else turn.reader()
        sequence, self.cut = await self._builder.sequence(self._prompt.text, self._prompt.media)
        native = turn.conversation.native
        # A form that cannot be had is refused before a word is said. This evaluates the prompt, which then is cached.
        check = replace(sequence, constraint=self._constraint, max_tokens=0)
        async with aclosing(run(self._builder.lease.model, check, guarded=False)) as events:
            async for event in events:
                if isinstance(event, Prefill):
                    yield Progress(phase="prefill", done_tokens=event.done_tokens, total_tokens=event.total_tokens)
        async with aclosing(run(self._builder.lease.model, sequence, guarded=not native)) as events:
            async for event in events:
                if isinstance(event, Prefill):
                    yield Progress(phase="prefill", done_tokens=event.done_tokens, total_tokens=event.total_tokens)
                elif isinstance(event, Finish):
                    self.finish = event
                else:
                    self._raw += event.text
                    self.spent += native
                    for delta in reader.feed(event):
                        self._thought.append(delta.thinking)
                        if delta.tool_calls and turn.must_call:
                            return  # the second sequence makes one that has the form
                        if not delta.text:
                            yield delta
                            continue
                        self._raw = self._raw.removesuffix(delta.text)
                        if delta.thinking or (turn.thinking and any(self._thought)):
                            yield replace(delta, text="", logprobs=())
                        return

    async def rest(self) -> RenderedPrompt:
        """Return the prompt of the second sequence: as the template writes a message that has only been thought."""
        turn, thought = self._turn, "".join(self._thought)
        if not thought:
            return self._prompt
        if turn.conversation.native:
            return replace(self._prompt, text=self._prompt.text + self._raw)
        again = await turn.conversation.prompt([*turn.messages, Message(role="assistant", thinking=thought)])
        harmony = turn.found.model.is_harmony or turn.found.model.config.parser == "harmony"
        if not harmony:
            return again
        return replace(again, text=again.text + (HARMONY_NEXT if turn.must_call else HARMONY_FINAL))

    def next_reader(self) -> AnswerReader:
        """Return the reader of the second sequence, which has no thinking."""
        turn = self._turn
        if turn.parser is not None and turn.must_call:
            parser = turn.found.templates.parser() or turn.parser
            parser.init(turn.offered, turn.messages[-1], Think(False))
            return AnswerReader(parser)
        if self.finish is not None and turn.parser is not None:
            return plain()  # the parser still waits for the thinking's end
        return turn.reader(thought=True)
