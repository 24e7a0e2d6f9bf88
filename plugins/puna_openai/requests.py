"""Writes a sequence request as the body of OpenAI's chat completions."""

from typing import Any

from puna.backend import SequenceRequest, UnsupportedError
from puna_openai import messages
from puna_openai.upstream import Upstream


def body(upstream: Upstream, model: str, request: SequenceRequest) -> dict[str, Any]:
    """Return the body.

    Raises UnsupportedError for a demand on the form of the answer that the upstream cannot meet, and
    InvalidRequestError for one that cannot be written. Parameters that only tune sampling are left out where the
    upstream does not know them.
    """
    chat = request.chat
    if chat is None:
        raise UnsupportedError("this backend takes conversations, not prompts")
    can = upstream.capabilities
    if chat.tools and "tools" not in can:
        raise UnsupportedError("this model does not support tools")
    written: dict[str, Any] = {
        "model": model,
        "messages": messages.conversation(chat, vision="vision" in can, audio="audio" in can),
        "stream": True,
        # The counts come in a last event of their own.
        "stream_options": {"include_usage": True},
    }
    if chat.tools and chat.tool_choice != "none":
        written["tools"] = messages.tools(chat.tools)
        if chat.tool_choice != "auto":
            written["tool_choice"] = messages.tool_choice(chat.tool_choice)
    if chat.thinking and "thinking" in can:
        on = chat.thinking != "off"
        written |= upstream.dialect.thinking(on, chat.thinking if chat.thinking not in ("on", "off") else "")
    if request.constraint is not None:
        if "structured_output" not in can:
            raise UnsupportedError("this model does not support structured output")
        written |= upstream.dialect.constraint(request.constraint)
    if request.top_logprobs is not None:
        if "logprobs" not in can:
            raise UnsupportedError("this model does not return log-probabilities")
        written["logprobs"] = True
        if request.top_logprobs:
            written["top_logprobs"] = request.top_logprobs
    if request.stop:
        written["stop"] = list(request.stop)
    if request.cache_salt and upstream.dialect.salts:
        written["cache_salt"] = request.cache_salt
    return written | _sampling(upstream, request)


def _sampling(upstream: Upstream, request: SequenceRequest) -> dict[str, Any]:
    sampling, dialect = request.sampling, upstream.dialect
    written = {
        theirs: value
        for ours, theirs in dialect.sampling.items()
        # An upstream has defaults of its own, often one for each model.
        if ours not in sampling.unset and (value := getattr(sampling, ours)) is not None
    }
    if "max_tokens" not in sampling.unset:
        written[dialect.max_tokens] = request.max_tokens
    if sampling.logit_bias:
        written["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    return written
