"""Answers a conversation.

Theory. A chat request runs one sequence, except for structured output of a model that may think. The constraint applies
to the content alone, never to the thinking before it, and a backend applies a constraint from the first token. So a
first sequence runs without the constraint (`_ThinkingPhase`). When its content begins, it is cancelled, and a second
sequence with the constraint continues after the thinking. Its prompt is mostly cached, since it extends the first.

Three ways to read an answer exist, one for each way in which the prompt was rendered: the parser of a builtin renderer,
the output layout of the model file's Jinja template, and the tags of a Go template.

One request is one async generator. Closing it closes the sequence and returns the lease.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from puna.backend import Constraint, Finish, Prefill, TextDelta
from puna.capabilities import PARSERS, THINKING
from puna.errors import DemandUnsupportedError
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
from puna.serving import answers, chat_level
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
from puna.serving.count import counted
from puna.serving.demands import check_demands
from puna.serving.requests import ChatRequest
from puna.serving.sampling_options import output_constraint, shifts
from puna.serving.sequence_builder import SequenceBuilder
from puna.serving.sequence_runner import run

HARMONY_NEXT: Final = "<|end|><|start|>assistant"
"""Ends the thinking in gpt-oss's format."""
HARMONY_FINAL: Final = f"{HARMONY_NEXT}<|channel|>final<|message|>"
"""Ends the thinking and begins the content in gpt-oss's format."""
_SPECIAL: Final = re.compile(r"\[[^\]]*\]|<[^>]*>")


async def chat(access: Access, request: ChatRequest, on_progress: OnProgress) -> AsyncGenerator[Event]:
    """Yield any number of Progress, then Deltas, then one Done. Closing the generator ends the sequence and the lease.

    The checks come in Ollama's order, since clients see the error of the first one that fails. Raises what Access.find
    and ModelPool.lease raise, CapabilityMissingError, OptionTypeError, InvalidFormatError, TemplateError,
    ContextOverflowError and InvalidRequestError.
    """
    asked = request.options
    clock = Clock(asked.start_ns)
    check_logprobs(asked)
    # With a required call the tools' schemas become the constraint, so they count against its size.
    access.check_constraint_size(asked, request.tools if request.tool_choice.mode == "required" else ())
    found = await access.find(request.model)
    # Unloading comes before every other check, as in Ollama, also for stubs of remote models.
    if not request.messages and asked.keep_alive == 0:
        await access.unload(found.model)
        yield Done(reason="unload")
        return
    access.refuse_remote(found)
    think = thinking_of(found, asked)
    check_capabilities(found, "chat", ["tools"] if request.tools else [])
    if found.backend is not None:
        check_demands(found.backend, asked)
        if found.takes_messages and (request.render_only or request.count_only):
            raise DemandUnsupportedError(found.backend.name, "render_only" if request.render_only else "CountTokens")
    options = options_of(found.model, asked)
    if found.model.mode == "native" and not found.takes_messages:
        # The worker process starts while the model loads.
        access.sandbox.warm()
    # A request that only loads a model takes no part in the bound on waiting requests. See puna.runtime.pool.
    kind = LeaseKind.SEQUENCE if request.messages else LeaseKind.LOAD_ONLY
    async with access.lease(found.model, options, asked, on_progress, kind) as lease:
        clock.model_ready()
        if not request.messages:
            yield Done(reason="load")
            return
        if found.takes_messages:
            conversation = chat_level.Conversation(
                model=found.model,
                messages=request.messages,
                tools=request.tools,
                tool_choice=request.tool_choice,
                think=asked.think and think,
                options=options,
                request=asked,
            )
            async with aclosing(chat_level.answer(conversation, lease, clock)) as events:
                async for event in events:
                    yield event
            return
        turn = await _turn(found, lease, request, think)
        if request.render_only:
            yield Done(rendered=answers.Rendered(turn.prompt.text, len(turn.prompt.media)))
            return
        # Ollama looks at `format` only after the model is loaded, so clients see the errors of the load first.
        constraint = output_constraint(asked.constraint)
        # An explicit format wins over tool_choice. The two constraints cannot both hold.
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
        if request.count_only:
            yield await counted(builder, turn.prompt.text, turn.prompt.media)
            return
        async with aclosing(_answer(turn, builder, constraint, clock)) as events:
            async for event in events:
                yield event


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One turn of a conversation: the prompt, and how the answer is read."""

    found: ResolvedModel
    conversation: Conversation
    messages: tuple[Message, ...]
    """All messages, before truncation."""
    prompt: RenderedPrompt
    tools: Sequence[Tool]
    think: Think | None
    thinking: ThinkingParser | None
    parser: Parser | None
    must_call: bool = False
    """Whether the answer must be a tool call."""
    offered: Sequence[Tool] = ()
    """The tools under their own names; a parser may have renamed those in `tools`."""
    layout: OutputLayout | None = None
    """Output layout of the model file's Jinja template; None if another template is used."""

    def tool_call_constraint(self) -> Constraint | None:
        """Return the constraint for an answer that must be a tool call; None if the notation of calls is not known."""
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
        """Special tokens that the parsers must see in the text."""
        if self.layout is not None:
            return self.layout.preserved_tokens
        if self.parser is not None:
            return tuple(self.parser.preserved_tokens)
        # A tag that is one special token would not be in the text unless it is preserved.
        tag = _SPECIAL.match(self.found.templates.tool_tag) if self.tools else None
        return (tag[0],) if tag else ()

    def reader(self, *, thought: bool = False) -> AnswerReader:
        """Return a reader for the answer. With `thought`, only the part after the thinking follows."""
        # Behind the thinking, constrained content has no markers left to take apart.
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
        """Return whether the model may think before the content, in a way that the reader recognises."""
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
    # The parser may rename tools whose names its format cannot write. The renderer must use the same names.
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
        # Some templates open the thinking in the prompt, so the answer begins inside it.
        thinking = ThinkingParser(opening, closing, started=prompt.text.rstrip().endswith(opening))
    must_call = request.tool_choice.mode == "required" and request.options.constraint is None
    layout = await templates.chat_template(lease.facts).layout(tools=bool(tools)) if conversation.native else None
    return ChatTurn(
        found, conversation, tuple(messages), prompt, tools, think, thinking, parser, must_call, offered, layout
    )


async def _answer(
    turn: ChatTurn, builder: SequenceBuilder, constraint: Constraint | None, clock: Clock
) -> AsyncGenerator[Event]:
    """Run one sequence, or two if the model may think before constrained content, and read them."""
    prompt, reader, spent = turn.prompt, turn.reader(), 0
    if constraint is not None and turn.may_think():
        first = _ThinkingPhase(turn, builder, prompt, constraint)
        async with aclosing(first.events()) as events:
            async for event in events:
                yield event
        # The limit was reached while the model was thinking. A second sequence would begin a new count and exceed it.
        if first.finish is not None and first.finish.reason == "length":
            yield _done(first.finish, Delta(), builder, clock, first.cut)
            return
        prompt, reader, spent = await first.second_prompt(), first.next_reader(), first.spent
    sequence, cut = await builder.sequence(prompt.text, prompt.media, constraint)
    # The guard is Ollama's, which has none where the model file's own template is used.
    async with aclosing(run(builder.lease.model, sequence, guarded=not turn.conversation.native)) as steps:
        async for step in steps:
            if isinstance(step, TextDelta):
                for delta in reader.feed(step):
                    yield delta
            elif isinstance(step, Prefill):
                yield Progress(phase="prefill", done_tokens=step.done_tokens, total_tokens=step.total_tokens)
            elif isinstance(step, Finish):
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
    """The first of two sequences: it runs without the constraint until content begins."""

    def __init__(
        self, turn: ChatTurn, builder: SequenceBuilder, prompt: RenderedPrompt, constraint: Constraint
    ) -> None:
        self._turn = turn
        self._constraint = constraint
        self._builder = builder
        self._prompt = prompt
        self._thinking_deltas: list[str] = []
        self._raw = ""
        self.finish: Finish | None = None
        """The end of the sequence, if it ended before any content."""
        self.spent = 0
        """Tokens of this sequence that are added to the count of the second one.

        Ollama runs one sequence where the model file's own template is used, so its counts include the thinking.
        """
        self.cut = 0

    async def events(self) -> AsyncGenerator[Event]:
        """Yield the thinking, and return when content begins."""
        turn = self._turn
        reader = AnswerReader(GoTemplateParser(turn.thinking)) if turn.thinking else turn.reader()
        sequence, self.cut = await self._builder.sequence(self._prompt.text, self._prompt.media)
        native = turn.conversation.native
        # An impossible constraint must be refused before the first delta. This sequence of no tokens has it compiled,
        # and it evaluates the prompt, which is then cached.
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
                elif isinstance(event, TextDelta):
                    self._raw += event.text
                    # `native` is a bool that counts as 0 or 1.
                    self.spent += native
                    for delta in reader.feed(event):
                        self._thinking_deltas.append(delta.thinking)
                        if delta.tool_calls and turn.must_call:
                            # The second sequence writes the call again, under the constraint.
                            return
                        if not delta.text:
                            yield delta
                            continue
                        # The content that has just begun is written again under the constraint, so it must leave the
                        # prompt of the second sequence.
                        self._raw = self._raw.removesuffix(delta.text)
                        if delta.thinking or (turn.thinking and any(self._thinking_deltas)):
                            yield replace(delta, text="", logprobs=())
                        return

    async def second_prompt(self) -> RenderedPrompt:
        """Return the prompt of the second sequence, which ends with a message that has thinking and no content yet."""
        turn, thought = self._turn, "".join(self._thinking_deltas)
        if not thought:
            return self._prompt
        if turn.conversation.native:
            # The raw text keeps the thinking exactly as the model wrote it, so that the cached prefix is as long as it
            # can be.
            return replace(self._prompt, text=self._prompt.text + self._raw)
        again = await turn.conversation.prompt([*turn.messages, Message(role="assistant", thinking=thought)])
        harmony = turn.found.model.is_harmony or turn.found.model.config.parser == "harmony"
        if not harmony:
            return again
        return replace(again, text=again.text + (HARMONY_NEXT if turn.must_call else HARMONY_FINAL))

    def next_reader(self) -> AnswerReader:
        """Return the reader for the second sequence, which does not think."""
        turn = self._turn
        if turn.parser is not None and turn.must_call:
            # A fresh parser without thinking. The first one has consumed the thinking and stands in the middle of an
            # answer.
            parser = turn.found.templates.parser() or turn.parser
            # Parsers rename tools in `init`, so they get the original names again.
            parser.init(turn.offered, turn.messages[-1], Think(False))
            return AnswerReader(parser)
        if self.finish is not None and turn.parser is not None:
            # The first sequence ended inside the thinking, and the parser would take the content for more of it.
            return plain()
        return turn.reader(thought=True)
