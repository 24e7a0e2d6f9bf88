"""Completes a prompt, and unloads or loads a model when the prompt is empty."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from puna import events as core_events
from puna.backend import BackendError, Constraint, Finish, Prefill, TextDelta
from puna.capabilities import THINKING
from puna.errors import (
    CapabilityMissingError,
    InvalidRequestError,
    InvalidTokenError,
    ModelNotFoundError,
    UnknownRendererError,
)
from puna.messages import Message, Think
from puna.options import Options
from puna.prompt.builtin.interface import Parser
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.rendered import RenderedPrompt
from puna.runtime.requirements import Lease, LeaseKind
from puna.serving import answers, chat_level, choices
from puna.serving.access import (
    Access,
    OnProgress,
    ResolvedModel,
    check_capabilities,
    check_logprobs,
    thinking_of,
)
from puna.serving.answer_parsers import AnswerReader
from puna.serving.answers import Done, Event, Progress
from puna.serving.clock import Clock, usage
from puna.serving.conversation import Conversation, assembled
from puna.serving.count import counted
from puna.serving.demands import check_demands, check_prompt, check_tokenizer, enforced_budget
from puna.serving.lengths import PER_TOKEN, WHOLE, is_long
from puna.serving.requests import GenerateRequest
from puna.serving.sampling_options import output_constraint, shifts
from puna.serving.sequence_builder import SequenceBuilder
from puna.serving.sequence_runner import run


async def generate(access: Access, request: GenerateRequest, on_progress: OnProgress) -> AsyncGenerator[Event]:
    """Yield any number of Progress, then Deltas, then one Done. Closing the generator ends the sequence and the lease.

    The checks come in Ollama's order, since clients see the error of the first one that fails. Raises what Access.find
    and ModelPool.lease raise, CapabilityMissingError, OptionTypeError, InvalidFormatError, TemplateError,
    ContextOverflowError and InvalidRequestError.
    """
    asked = request.options
    clock = Clock(asked.start_ns)
    check_logprobs(asked)
    access.check_constraint_size(asked)
    found = await access.find(request.model, missing=lambda: ModelNotFoundError(request.model))
    access.refuse_remote(found)
    # Only an empty prompt loads or unloads. A suffix or a system message without a prompt does not change that.
    empty = len(request.prompt) == 0
    # Unloading comes before the checks of the prompt, as in Ollama.
    if empty and asked.keep_alive == 0:
        await access.unload(found.model)
        yield Done(reason="unload")
        return
    if found.backend is not None:
        check_prompt(found.backend, request)
        check_demands(found.backend, asked, n=request.n, thinks=THINKING in found.model.capabilities)
    think = _checked(found, request)
    options = access.options_of(found.model, asked)
    if found.model.uses_jinja and not found.takes_messages:
        # The worker process starts while the model loads.
        access.sandbox.warm()
    kind = LeaseKind.LOAD_ONLY if empty else LeaseKind.SEQUENCE
    async with access.lease(found.model, options, asked, on_progress, kind) as lease:
        clock.model_ready()
        if empty:
            yield Done(reason="load")
            return
        if found.takes_messages:
            conversation = _conversation(found, request, think, options)
            async with aclosing(chat_level.answer(conversation, lease, clock)) as events:
                async for event in events:
                    yield event
            return
        parser = found.templates.parser()
        with core_events.stage("render"):
            prompt = await _prompt(access, found, lease, request, think)
        if request.render_only:
            yield Done(rendered=answers.Rendered(str(prompt.text), len(prompt.media)))
            return
        # Ollama looks at `format` only after the model is loaded, so clients see the errors of the load first.
        constraint = output_constraint(asked.constraint)
        builder = SequenceBuilder(
            lease=lease,
            options=options,
            request=asked,
            shift=shifts(found.model, asked),
            cuts=asked.truncate,
            preserved=tuple(parser.preserved_tokens) if parser else (),
            bos=_bos_text(found),
            thinking_budget=enforced_budget(found.backend, asked),
        )
        if request.count_only:
            yield await counted(builder, _input(request, prompt), prompt.media)
            return

        def answer(choice: int) -> AsyncGenerator[Event]:
            own = replace(builder, choice=choice) if choice else builder
            return _answer(own, found, request, think, prompt, constraint, clock)

        async with aclosing(choices.answers(answer, request.n)) as events:
            async for event in events:
                yield event


def _input(request: GenerateRequest, prompt: RenderedPrompt) -> str | tuple[int, ...]:
    return request.prompt if isinstance(request.prompt, tuple) else prompt.text


async def _answer(
    builder: SequenceBuilder,
    found: ResolvedModel,
    request: GenerateRequest,
    think: Think | None,
    prompt: RenderedPrompt,
    constraint: Constraint | None,
    clock: Clock,
) -> AsyncGenerator[Event]:
    """Run one sequence and read it."""
    lease = builder.lease
    reader = _reader(found, _parser(found, request), think, prompt.text)
    sequence, cut = await builder.sequence(_input(request, prompt), prompt.media, constraint, reader.thinking_markers)
    # The text of the whole answer is kept, because the last message returns its tokens as `context`.
    raw = [prompt.text]
    async with aclosing(run(lease.model, sequence, guarded=True)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                raw.append(event.text)
                for delta in reader.feed(event):
                    yield delta
            elif isinstance(event, Prefill):
                yield Progress(phase="prefill", done_tokens=event.done_tokens, total_tokens=event.total_tokens)
            elif isinstance(event, Finish):
                # A raw request manages its own history, so Ollama returns no context for it. Several answers have none,
                # since only Ollama's own API continues from one.
                countable = lease.facts.tokenizer and not request.raw and request.n == 1
                texts = (raw, sequence.prompt) if countable else None
                yield await _done(event, reader, lease, clock, cut, texts)


def _parser(found: ResolvedModel, request: GenerateRequest) -> Parser | None:
    """Return a new parser for one answer; None if the model names none."""
    parser = found.templates.parser()
    if parser is not None:
        parser.init((), None, request.options.think)
    return parser


def _checked(found: ResolvedModel, request: GenerateRequest) -> Think | None:
    """Check the request against the model's capabilities; return whether and how hard it thinks."""
    if "image" in found.model.capabilities:
        raise CapabilityMissingError("image generation models are not currently supported")
    if request.raw and (request.template or request.system or request.context):
        raise InvalidRequestError("raw mode does not support template, system, or context")
    think = thinking_of(found, request.options)
    check_capabilities(found, "generate", ["insert"] if request.suffix else [])
    return think


async def _prompt(
    access: Access, found: ResolvedModel, lease: Lease, request: GenerateRequest, think: Think | None
) -> RenderedPrompt:
    """Render the prompt. Token ids need no text, so theirs is empty."""
    if not isinstance(request.prompt, str):
        return RenderedPrompt("", request.media)
    if request.raw:
        return RenderedPrompt(request.prompt, request.media)
    model, templates = found.model, found.templates
    before = await _text_of(lease, request.context) if request.context else ""
    if request.suffix:
        template = access.sandbox.go_template(request.template) if request.template else templates.template
        return RenderedPrompt(before + await template.fill(request.prompt, request.suffix, think), request.media)
    # A context already holds the preset messages of the earlier turn.
    preset = model.messages if request.context is None else ()
    said = Message(role="user", content=request.prompt, media=request.media)
    messages = assembled(model, preset, request.system or model.system, (said,))
    if request.template:
        text = await access.sandbox.go_template(request.template).render(messages, (), think)
        return RenderedPrompt(before + text, request.media)
    renderer = templates.renderer()
    conversation = Conversation(
        model=model,
        templates=templates,
        lease=lease,
        renderer=renderer,
        native=model.uses_jinja,
        marks=renderer is None,
        tools=(),
        think=think,
        truncate=request.options.truncate,
    )
    rendered = await conversation.prompt(messages, request.options.constraint, early=True)
    return RenderedPrompt(before + rendered.text, rendered.media)


def _conversation(
    found: ResolvedModel, request: GenerateRequest, think: Think | None, options: Options
) -> chat_level.Conversation:
    """Return a prompt as a conversation of one message, for a backend that takes messages."""
    # Token ids come with `raw` only, which such a backend refuses.
    assert isinstance(request.prompt, str)
    return chat_level.Conversation(
        model=found.model,
        messages=(Message(role="user", content=request.prompt, media=request.media),),
        system=request.system,
        think=request.options.think and think,
        thinking_budget=enforced_budget(found.backend, request.options),
        options=options,
        request=request.options,
        preset=request.context is None,
    )


def _bos_text(found: ResolvedModel) -> str:
    """Return the BOS text of the model's renderer.

    An unknown renderer is no error here, since a raw prompt does not use it.
    """
    try:
        renderer = found.templates.renderer()
    except UnknownRendererError:
        return ""
    return renderer.bos if renderer else ""


async def _text_of(lease: Lease, tokens: tuple[int, ...]) -> str:
    check_tokenizer(lease.facts)
    # Each token becomes text and is tokenized again, so the bound is that of a text that is tokenized whole.
    most = max(WHOLE, PER_TOKEN * lease.facts.context_length)
    if len(tokens) > most:
        raise InvalidRequestError(f"context has {len(tokens)} tokens, at most {most} are taken")
    try:
        return b"".join(await lease.model.detokenize(tokens, special=True)).decode(errors="replace")
    except BackendError as error:
        raise InvalidTokenError(str(error)) from error


def _reader(found: ResolvedModel, parser: Parser | None, think: Think | None, prompt: str) -> AnswerReader:
    if parser is not None:
        return AnswerReader(parser, calls_at_end=True)
    thinking, tags = None, found.templates.thinking_tags
    if think is not None and think.on and tags:
        opening, closing = tags
        thinking = ThinkingParser(opening, closing, started=prompt.rstrip().endswith(opening))
    return AnswerReader(GoTemplateParser(thinking), sends_empty=True)


async def _context(lease: Lease, prompt: str, answer: str, evaluated: str | Sequence[int]) -> tuple[int, ...]:
    """Return the `context` of the answer: the tokens of the whole prompt, also if it was truncated, and of the answer.

    For a prompt too long to be tokenized whole, the tokens that were evaluated stand for it.
    """
    facts, model = lease.facts, lease.model
    if isinstance(evaluated, str) or not is_long(prompt, facts.context_length):
        return tuple(await model.tokenize(prompt + answer, add_special=False, parse_special=True))
    # BOS is added again when the context is rendered next time.
    begun = evaluated[1:] if facts.adds_bos else evaluated
    return (*begun, *await model.tokenize(answer, add_special=False, parse_special=True))


async def _done(
    finish: Finish,
    reader: AnswerReader,
    lease: Lease,
    clock: Clock,
    cut: int,
    texts: tuple[list[str], str | Sequence[int]] | None,
) -> Done:
    """`texts` are the prompt with the answer's deltas, and the prompt as it was evaluated; None: return no context."""
    context = None
    if texts is not None:
        (prompt, *deltas), evaluated = texts
        context = await _context(lease, prompt, "".join(deltas), evaluated)
    return Done(
        reason="length" if finish.reason == "length" else "stop",
        delta=reader.finish(),
        stop_sequence=finish.stop_sequence,
        usage=usage(finish, cut),
        timings=clock.timings(finish, lease.model.queued_ns),
        context=context,
    )
