"""Converts between the contract's dataclasses and `puna.backend.v1`, in both directions, for host and core."""

import array
import json
import sys
from collections.abc import Sequence
from contextlib import suppress

from puna import backend as contract
from puna.backend.v1 import backend_pb2 as wire
from puna.errors import BackendFailedError
from puna.host.channel import LONGEST_ERROR
from puna.host.convert_chat import call_from_wire, call_to_wire, chat_from_wire, chat_to_wire

FAILURE_KEY = "puna-failure-bin"
"""Trailing metadata of a failed call: a serialized Failure."""

Failure = wire.Failure


def spec_to_wire(backend: str, spec: contract.ModelSpec, model_id: str = "") -> wire.LoadRequest:
    """Write a ModelSpec and the name of the backend."""
    return wire.LoadRequest(
        backend=backend,
        model_id=model_id,
        path=spec.path,
        name=spec.name,
        format=spec.format,
        files=spec.files,
        folder=spec.folder,
        upstream=spec.upstream,
        adapter_paths=spec.adapter_paths,
        projector_paths=spec.projector_paths,
        draft_path=spec.draft_path or "",
        context_length=spec.context_length,
        parallel=spec.parallel,
        batch_size=spec.batch_size,
        gpu_layers=spec.gpu_layers,
        main_gpu=spec.main_gpu,
        use_mmap=spec.use_mmap,
        threads=spec.threads,
        draft_tokens=spec.draft_tokens,
        flash_attention=spec.flash_attention,
        kv_cache_type=spec.kv_cache_type,
        backend_options_json=json.dumps(dict(spec.backend_options)) if spec.backend_options else "",
        memory_bytes=spec.memory_bytes,
        weights_loaded=spec.weights_loaded,
        constraint_limits=wire.ConstraintLimits(
            seconds=spec.constraint_limits.seconds,
            mask_seconds=spec.constraint_limits.mask_seconds,
            memory_bytes=spec.constraint_limits.memory_bytes,
        ),
    )


def spec_from_wire(request: wire.LoadRequest) -> contract.ModelSpec:
    """Read a ModelSpec. Raises ValueError if the options are not a JSON object."""
    options = json.loads(request.backend_options_json or "{}")
    if not isinstance(options, dict):
        raise ValueError("backend options must be a JSON object")
    limits = request.constraint_limits
    return contract.ModelSpec(
        path=request.path,
        name=request.name,
        format=request.format,
        files=dict(request.files),
        folder=request.folder,
        upstream=request.upstream,
        adapter_paths=tuple(request.adapter_paths),
        projector_paths=tuple(request.projector_paths),
        draft_path=request.draft_path or None,
        context_length=request.context_length,
        parallel=request.parallel,
        batch_size=request.batch_size,
        gpu_layers=request.gpu_layers,
        main_gpu=request.main_gpu if request.HasField("main_gpu") else None,
        use_mmap=request.use_mmap if request.HasField("use_mmap") else None,
        threads=request.threads,
        draft_tokens=request.draft_tokens,
        flash_attention=request.flash_attention,
        kv_cache_type=request.kv_cache_type,
        backend_options=options,
        memory_bytes=request.memory_bytes,
        weights_loaded=request.weights_loaded,
        constraint_limits=contract.ConstraintLimits(
            seconds=limits.seconds, mask_seconds=limits.mask_seconds, memory_bytes=limits.memory_bytes
        )
        # Missing limits mean the defaults; reading the unset message would give zeros, which refuse every constraint.
        if request.HasField("constraint_limits")
        else contract.ConstraintLimits(),
    )


# A host that does not set the wire's flag has a tokenizer, so the flag's sense is the opposite of the dataclass's.
FACTS = tuple(name for name in wire.Loaded.DESCRIPTOR.fields_by_name if name != "lacks_tokenizer")


def facts_to_wire(facts: contract.ModelFacts) -> wire.Loaded:
    """Write the facts of a loaded model."""
    # Fields of the wire and of the dataclass have the same names, so a new field needs no line here.
    return wire.Loaded(**{name: getattr(facts, name) for name in FACTS}, lacks_tokenizer=not facts.tokenizer)


def facts_from_wire(loaded: wire.Loaded) -> contract.ModelFacts:
    """Read the facts of a loaded model."""
    return contract.ModelFacts(**{name: getattr(loaded, name) for name in FACTS}, tokenizer=not loaded.lacks_tokenizer)


def sequence_to_wire(request: contract.SequenceRequest) -> wire.StartSequence:
    """Write a request for a sequence."""
    start = wire.StartSequence(
        media=request.media,
        sampling=_sampling_to_wire(request.sampling),
        max_tokens=request.max_tokens,
        stop=request.stop,
        top_logprobs=request.top_logprobs,
        keep_tokens=request.keep_tokens,
        shift=request.shift,
        preserved_tokens=request.preserved_tokens,
        cache_salt=request.cache_salt,
        priority=request.priority,
        score_from=request.score_from,
    )
    if isinstance(request.prompt, str):
        start.text = request.prompt
    else:
        start.token_ids.extend(request.prompt)
        # protobuf does not tell an empty list from a missing one, and a prompt of no tokens differs from an empty text.
        start.has_token_ids = True
    if request.chat is not None:
        start.chat.CopyFrom(chat_to_wire(request.chat))
    if (budget := request.thinking_budget) is not None:
        markers = {name: getattr(budget.markers, name) for name in MARKERS}
        start.thinking_budget.CopyFrom(wire.ThinkingBudget(max_tokens=budget.max_tokens, **markers))
    # The kinds of the contract are the names of the oneof's fields.
    if request.constraint is not None:
        setattr(start.constraint, request.constraint.kind, request.constraint.text)
    return start


def sequence_from_wire(start: wire.StartSequence) -> contract.SequenceRequest:
    """Read a request for a sequence."""
    kind = start.constraint.WhichOneof("kind")
    return contract.SequenceRequest(
        prompt=tuple(start.token_ids) if start.has_token_ids else start.text,
        media=tuple(start.media),
        sampling=_sampling_from_wire(start.sampling),
        max_tokens=start.max_tokens,
        stop=tuple(start.stop),
        constraint=contract.Constraint(kind, getattr(start.constraint, kind)) if kind else None,
        top_logprobs=start.top_logprobs if start.HasField("top_logprobs") else None,
        keep_tokens=start.keep_tokens,
        shift=start.shift,
        preserved_tokens=tuple(start.preserved_tokens),
        cache_salt=start.cache_salt,
        priority=start.priority,
        score_from=start.score_from if start.HasField("score_from") else None,
        chat=chat_from_wire(start.chat) if start.HasField("chat") else None,
        thinking_budget=_budget_from_wire(start.thinking_budget) if start.HasField("thinking_budget") else None,
    )


# The wire has the markers in one message with the number.
MARKERS = tuple(name for name in wire.ThinkingBudget.DESCRIPTOR.fields_by_name if name != "max_tokens")


def _budget_from_wire(budget: wire.ThinkingBudget) -> contract.ThinkingBudget:
    markers = contract.ThinkingMarkers(
        starts=tuple(budget.starts),
        open=budget.open,
        again=budget.again,
        ends=tuple(budget.ends),
        closings=tuple(budget.closings),
    )
    return contract.ThinkingBudget(max_tokens=budget.max_tokens, markers=markers)


def _sampling_to_wire(sampling: contract.Sampling) -> wire.Sampling:
    return wire.Sampling(**{name: getattr(sampling, name) for name in wire.Sampling.DESCRIPTOR.fields_by_name})


def _sampling_from_wire(sampling: wire.Sampling) -> contract.Sampling:
    values = {name: getattr(sampling, name) for name in wire.Sampling.DESCRIPTOR.fields_by_name}
    # 0 is a seed like any other, so only presence tells "random".
    seed = sampling.seed if sampling.HasField("seed") else None
    own = {"seed": seed, "logit_bias": dict(sampling.logit_bias), "unset": tuple(sampling.unset)}
    return contract.Sampling(**values | own)


def add_event(response: wire.RunResponse, sequence_id: int, event: contract.SequenceEvent) -> None:
    """Write an event of a sequence at the end of a message.

    Raises TypeError or ValueError with a text for the plugin's author, and leaves the message as it was.
    """
    # Every token passes here. An event that is made by itself would be copied into the message.
    out = response.events.add()
    try:
        out.sequence_id = sequence_id
        _fill_event(out, event)
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        del response.events[-1]
        # Half of a character that UTF-16 writes as two. Python's strings can hold it, and UTF-8 cannot.
        if isinstance(error, UnicodeEncodeError):
            text = "the backend yielded text with a lone surrogate, which is not valid Unicode"
            raise ValueError(text) from None
        name = type(event).__name__
        raise TypeError(f"the backend yielded a {name} that the contract does not allow: {error}") from error


def _fill_event(out: wire.SequenceEvent, event: contract.SequenceEvent) -> None:
    if isinstance(event, contract.TextDelta):
        # protobuf takes None for an empty text, and bytes for text.
        if not isinstance(event.text, str):
            raise TypeError("its text is no str")
        # Setting the fields takes half as long as building a message of messages. Most deltas have no
        # log-probabilities.
        delta = out.text_delta
        delta.text = event.text
        if event.logprobs:
            delta.logprobs.extend(map(_logprob_to_wire, event.logprobs))
        elif not event.text:
            delta.SetInParent()
        if event.cached_prompt_tokens:
            delta.cached_prompt_tokens = event.cached_prompt_tokens
    elif isinstance(event, contract.ChatDelta):
        chat = wire.ChatDelta(
            content=event.content,
            thinking=event.thinking,
            tool_calls=map(call_to_wire, event.tool_calls),
            logprobs=map(_logprob_to_wire, event.logprobs),
        )
        out.chat_delta.CopyFrom(chat)
    elif isinstance(event, contract.Finish):
        out.finish.CopyFrom(_finish_to_wire(event))
    elif isinstance(event, contract.PromptLogprobs):
        out.prompt_logprobs.CopyFrom(wire.PromptLogprobs(logprobs=map(_logprob_to_wire, event.logprobs)))
    elif isinstance(event, contract.Prefill):
        out.prefill.CopyFrom(wire.Prefill(done_tokens=event.done_tokens, total_tokens=event.total_tokens))
    else:
        raise TypeError("it is no event")


def event_from_wire(event: wire.SequenceEvent) -> contract.SequenceEvent:
    """Read an event of a sequence. Raises the error of a failure, as the backend raised it."""
    kind = event.WhichOneof("event")
    if kind == "text_delta":
        delta = event.text_delta
        # Most deltas have no log-probabilities, and every token passes here.
        if not (logprobs := delta.logprobs):
            return contract.TextDelta(delta.text, (), delta.cached_prompt_tokens)
        return contract.TextDelta(delta.text, tuple(map(_logprob_from_wire, logprobs)), delta.cached_prompt_tokens)
    if kind == "finish":
        return _finish_from_wire(event.finish)
    if kind == "chat_delta":
        chat = event.chat_delta
        return contract.ChatDelta(
            content=chat.content,
            thinking=chat.thinking,
            tool_calls=tuple(map(call_from_wire, chat.tool_calls)),
            logprobs=tuple(map(_logprob_from_wire, chat.logprobs)),
        )
    if kind == "prompt_logprobs":
        return contract.PromptLogprobs(tuple(map(_logprob_from_wire, event.prompt_logprobs.logprobs)))
    if kind == "prefill":
        return contract.Prefill(event.prefill.done_tokens, event.prefill.total_tokens)
    if kind == "failure":
        raise error_from_wire(event.failure)
    raise BackendFailedError("the backend breaks its contract: it sent an event of an unknown kind")


def _logprob_to_wire(each: contract.TokenLogprob) -> wire.TokenLogprob:
    top = [_logprob_to_wire(other) for other in each.top]
    return wire.TokenLogprob(raw=each.raw, token_id=each.token_id, logprob=each.logprob, top=top)


def _logprob_from_wire(each: wire.TokenLogprob) -> contract.TokenLogprob:
    top = tuple(_logprob_from_wire(other) for other in each.top)
    return contract.TokenLogprob(each.raw, each.token_id, each.logprob, top)


# The wire has a flag instead of the reason, so that all other fields can be copied by name.
FINISH_COUNTS = tuple(name for name in wire.Finish.DESCRIPTOR.fields_by_name if name != "length")


def _finish_to_wire(finish: contract.Finish) -> wire.Finish:
    if finish.reason not in ("stop", "length"):
        raise ValueError('its reason is neither "stop" nor "length"')
    counts = {name: getattr(finish, name) for name in FINISH_COUNTS}
    return wire.Finish(length=finish.reason == "length", **counts)


def _finish_from_wire(finish: wire.Finish) -> contract.Finish:
    counts = {name: getattr(finish, name) for name in FINISH_COUNTS}
    return contract.Finish(reason="length" if finish.length else "stop", **counts)


def text_of(error: BaseException) -> str:
    """Return the text of a plugin's exception, or the name of its class if it has none. Never raises.

    The text is at most LONGEST_ERROR characters long and valid Unicode.
    """
    try:
        # Slicing as `str` does it, since `__str__` may return a subclass with code of its own.
        text, name = str.__getitem__(str(error), slice(LONGEST_ERROR)), str(type(error).__name__)
        # Without its name such an error is a lone key or exit status, which says nothing.
        text = f"{name}: {text}" if text and issubclass(type(error), KeyError | SystemExit) else text or name
        # Lone surrogates become U+FFFD. Neither protobuf nor a log can carry them.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    except BaseException:  # a plugin may raise anything, also here
        return "an exception without a readable text"


def error_to_wire(error: BaseException) -> wire.Failure:
    """Write an error. An error that the contract does not name becomes a Failure of unspecified kind. Never raises."""
    # Of the type, because `isinstance` would run the error's own `__class__`.
    kind, text = type(error), text_of(error)
    if issubclass(kind, contract.PromptTooLongError):
        # A subclass may have lost the two numbers. They travel in fields of their own, since the core writes another
        # text with them.
        with suppress(Exception):
            return wire.Failure(
                kind=wire.Failure.KIND_CONTEXT_OVERFLOW,
                message=text,
                prompt_tokens=error.prompt_tokens,  # type: ignore[attr-defined]
                context_length=error.context_length,  # type: ignore[attr-defined]
            )
    if issubclass(kind, contract.InvalidRequestError):
        return wire.Failure(kind=wire.Failure.KIND_INVALID, message=text)
    if issubclass(kind, contract.UnavailableError):
        return wire.Failure(kind=wire.Failure.KIND_UNAVAILABLE, message=text)
    if issubclass(kind, contract.UnsupportedError):
        return wire.Failure(kind=wire.Failure.KIND_UNSUPPORTED, message=text)
    return wire.Failure(message=text)


def error_from_wire(failure: wire.Failure) -> contract.BackendError | BackendFailedError:
    """Read an error: the contract's class, or BackendFailedError for an unspecified kind."""
    text = failure.message[:LONGEST_ERROR] or "the backend failed without saying why"
    if failure.kind == wire.Failure.KIND_CONTEXT_OVERFLOW:
        return contract.PromptTooLongError(failure.prompt_tokens, failure.context_length)
    if failure.kind == wire.Failure.KIND_INVALID:
        return contract.InvalidRequestError(text)
    if failure.kind == wire.Failure.KIND_UNAVAILABLE:
        return contract.UnavailableError(text)
    if failure.kind == wire.Failure.KIND_UNSUPPORTED:
        return contract.UnsupportedError(text)
    # Unspecified, or a kind that a newer host sends and this core does not know.
    return BackendFailedError(text)


def input_to_wire(text: str | Sequence[int]) -> wire.EmbedInput:
    """Write a text or token ids to embed."""
    if isinstance(text, str):
        return wire.EmbedInput(text=text)
    return wire.EmbedInput(token_ids=text, has_token_ids=True)


def input_from_wire(message: wire.EmbedInput) -> str | tuple[int, ...]:
    """Read a text or token ids to embed."""
    return tuple(message.token_ids) if message.has_token_ids else message.text


def embedding_to_wire(embedding: contract.Embedding) -> wire.Embedding:
    """Write a vector as little-endian 32-bit floats."""
    # Bytes, not repeated floats: a Python list of floats costs 24 bytes and an object for each number.
    values = array.array("f", embedding.values)
    if sys.byteorder == "big":
        values.byteswap()
    return wire.Embedding(values=values.tobytes(), token_count=embedding.token_count)


def embedding_from_wire(message: wire.Embedding) -> contract.Embedding:
    """Read a vector from little-endian 32-bit floats."""
    values = array.array("f", message.values)
    if sys.byteorder == "big":
        values.byteswap()
    return contract.Embedding(values, message.token_count)
