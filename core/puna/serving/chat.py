"""Answers a conversation.

Theory. A chat request runs one sequence, except for structured output of a model that may think. The constraint applies
to the content alone, never to the thinking before it, and a backend applies a constraint from the first token. So a
first sequence runs without the constraint (`ThinkingPhase`). When its content begins, it is cancelled, and a second
sequence with the constraint continues after the thinking. Its prompt is mostly cached, since it extends the first.

One request is one async generator. Closing it closes the sequence and returns the lease.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from puna import events as core_events
from puna.backend import Constraint, Finish, Prefill, TextDelta
from puna.capabilities import THINKING
from puna.errors import DemandUnsupportedError
from puna.options import Options
from puna.runtime.requirements import Lease, LeaseKind
from puna.serving import answers, chat_level, choices
from puna.serving.access import (
    Access,
    OnProgress,
    check_capabilities,
    check_logprobs,
    thinking_of,
)
from puna.serving.answers import Delta, Done, Event, Progress
from puna.serving.chat_turn import ChatTurn, chat_turn
from puna.serving.clock import Clock, usage
from puna.serving.count import counted
from puna.serving.demands import check_demands, enforced_budget
from puna.serving.requests import ChatRequest, RequestOptions
from puna.serving.sampling_options import output_constraint, shifts
from puna.serving.sequence_builder import SequenceBuilder
from puna.serving.sequence_runner import run
from puna.serving.thinking_phase import ThinkingPhase


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
        check_demands(found.backend, asked, n=request.n, thinks=THINKING in found.model.capabilities)
        if found.takes_messages and (request.render_only or request.count_only):
            raise DemandUnsupportedError(found.backend.name, "render_only" if request.render_only else "CountTokens")
    options = access.options_of(found.model, asked)
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
                tool_call_deltas=request.tool_call_deltas,
                think=asked.think and think,
                thinking_budget=enforced_budget(found.backend, asked),
                options=options,
                request=asked,
            )
            async with aclosing(chat_level.answer(conversation, lease, clock)) as events:
                async for event in events:
                    yield event
            return
        with core_events.stage("render"):
            turn = await chat_turn(found, lease, request, think)
        if request.render_only:
            yield Done(rendered=answers.Rendered(turn.prompt.text, len(turn.prompt.media)))
            return
        # Ollama looks at `format` only after the model is loaded, so clients see the errors of the load first.
        constraint = output_constraint(asked.constraint)
        # An explicit format wins over tool_choice. The two constraints cannot both hold.
        if constraint is None and request.tool_choice.mode == "required":
            constraint = turn.tool_call_constraint()
        builder = _builder(turn, lease, options, asked)
        if request.count_only:
            yield await counted(builder, turn.prompt.text, turn.prompt.media)
            return

        def answer(choice: int) -> AsyncGenerator[Event]:
            own = turn.anew() if choice else turn
            return _answer(own, replace(builder, choice=choice) if choice else builder, constraint, clock)

        async with aclosing(choices.answers(answer, request.n)) as events:
            async for event in events:
                yield event


def _builder(turn: ChatTurn, lease: Lease, options: Options, asked: RequestOptions) -> SequenceBuilder:
    return SequenceBuilder(
        lease=lease,
        options=options,
        request=asked,
        shift=shifts(turn.found.model, asked),
        cuts=asked.truncate and not turn.conversation.native,
        preserved=turn.preserved,
        stops=turn.layout.stops if turn.layout else (),
        bos=turn.conversation.renderer.bos if turn.conversation.renderer else "",
        thinking_budget=enforced_budget(turn.found.backend, asked),
    )


async def _answer(
    turn: ChatTurn, builder: SequenceBuilder, constraint: Constraint | None, clock: Clock
) -> AsyncGenerator[Event]:
    """Run one sequence, or two if the model may think before constrained content, and read them."""
    prompt, reader = turn.prompt, turn.reader()
    spent = thought = 0
    cached: int | None = None
    if constraint is not None and turn.may_think():
        first = ThinkingPhase(turn, builder, prompt, constraint)
        async with aclosing(first.events()) as events:
            async for event in events:
                yield event
        # The limit was reached while the model was thinking. A second sequence would begin a new count and exceed it.
        if first.finish is not None and first.finish.reason == "length":
            finish = replace(first.finish, cached_prompt_tokens=first.cached)
            yield _done(finish, Delta(), builder, clock, first.cut)
            return
        with core_events.stage("render"):
            prompt = await first.second_prompt()
        reader = first.next_reader()
        spent, thought, cached = first.spent, first.thinking_tokens, first.cached
    sequence, cut = await builder.sequence(prompt.text, prompt.media, constraint, reader.thinking_markers)
    # The guard is Ollama's, which has none where the model file's own template is used.
    async with aclosing(run(builder.lease.model, sequence, guarded=not turn.conversation.native)) as steps:
        async for step in steps:
            if isinstance(step, TextDelta):
                for delta in reader.feed(step):
                    yield delta
            elif isinstance(step, Prefill):
                yield Progress(phase="prefill", done_tokens=step.done_tokens, total_tokens=step.total_tokens)
            elif isinstance(step, Finish):
                # What the first sequence has evaluated was not cached when the request came.
                finish = replace(
                    step,
                    output_tokens=step.output_tokens + spent,
                    thinking_tokens=step.thinking_tokens + thought,
                    cached_prompt_tokens=step.cached_prompt_tokens if cached is None else cached,
                )
                yield _done(finish, reader.finish(), builder, clock, cut)


def _done(finish: Finish, delta: Delta, builder: SequenceBuilder, clock: Clock, cut: int) -> Done:
    return Done(
        reason="length" if finish.reason == "length" else "stop",
        delta=delta,
        stop_sequence=finish.stop_sequence,
        usage=usage(finish, cut),
        timings=clock.timings(finish, builder.lease.model.queued_ns),
    )
