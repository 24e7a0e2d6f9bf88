"""Translates failures of an upstream into the contract's errors, with texts that name the upstream and no secret.

A user must learn what to do from the text, and must not learn the operator's key, headers or addresses. Texts of an
upstream are passed on only where the user's request is at fault, and every secret in them is blackened.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import openai

from puna.backend import BackendError, InvalidRequestError, PromptTooLongError, UnavailableError
from puna_openai.answers import NonsenseError
from puna_openai.bounds import TooLargeError
from puna_openai.upstream import Upstream

LONGEST: Final = 500
"""Characters of an upstream's text that are passed on."""
# Servers quote keys in their errors, also keys of their own upstreams.
_KEY: Final = re.compile(r"\b(?:sk|key|hf|gsk|xai|pk)[-_][\w*.-]{6,}|Bearer\s+\S+", re.IGNORECASE)
_TOO_LONG: Final = (
    # OpenAI and vLLM: the context, then the request.
    re.compile(r"maximum context length is (?P<context>\d+) tokens.*?(?P<prompt>\d+) tokens", re.DOTALL),
    # llama-server and Puna: the request, then the context.
    re.compile(r"\((?P<prompt>\d+) tokens\) exceeds the available context size \((?P<context>\d+) tokens\)"),
    re.compile(r"[Rr]equested tokens \((?P<prompt>\d+)\) exceed context window of (?P<context>\d+)"),
)


class StalledError(Exception):
    """The upstream sent nothing for too long."""

    def __init__(self, seconds: float, *, begun: bool) -> None:
        """`begun` says whether a part of the answer had arrived."""
        super().__init__(f"{seconds:g}")
        self.begun = begun


class CutError(Exception):
    """The stream ended before the answer did."""


FAILURES: Final = (openai.OpenAIError, StalledError, CutError, TooLargeError, NonsenseError, ValueError)
"""What a request may end with if the upstream is at fault. ValueError: a line of a stream is no JSON, or no UTF-8."""


def is_transient(error: Exception) -> bool:
    """Return whether the request may be sent again, provided that no part of an answer was passed on."""
    return isinstance(error, CutError | openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError)


def translated(upstream: Upstream, model: str, error: Exception, *, begun: bool = False) -> BackendError:
    """Return the contract's error for one of FAILURES. `begun` says whether a part of the answer had arrived."""
    if isinstance(error, openai.APIStatusError):
        return _refused(upstream, model, error)
    if isinstance(error, openai.APIConnectionError) and begun:
        error = CutError()
    # What waiting may mend. A stream that stalls or breaks in its middle has done part of its work.
    passing = not begun and isinstance(error, openai.APIConnectionError | StalledError | CutError)
    return (UnavailableError if passing else BackendError)(_text(upstream, error))


def blackened(upstream: Upstream, text: str) -> str:
    """Return a text of an upstream without secrets, on one line and of bounded length."""
    for secret in upstream.secrets:
        text = text.replace(secret, "***")
    return _KEY.sub("***", " ".join(text.split()))[:LONGEST]


def _text(upstream: Upstream, error: Exception) -> str:
    """Return the text for a failure that has no status."""
    name = f"upstream {upstream.name!r}"
    if isinstance(error, StalledError):
        return f"{name} sent nothing for {error} seconds{' in the middle of its answer' if error.begun else ''}"
    # Only connecting has a timeout of the package's own.
    if isinstance(error, openai.APIConnectionError):
        return f"{name} cannot be reached"
    if isinstance(error, CutError):
        return f"{name} ended its answer too early"
    if isinstance(error, TooLargeError):
        return f"{name} sent {error}"
    if isinstance(error, NonsenseError):
        return f"{name} sent an answer that cannot be read: {error}"
    if isinstance(error, ValueError):
        return f"{name} sent an answer that cannot be read: it is no JSON"
    # An error event in a stream that had begun with status 200.
    reason = blackened(upstream, _message(error)) if isinstance(error, openai.APIError) else type(error).__name__
    return f"{name} failed: {reason}"


def _refused(upstream: Upstream, model: str, error: openai.APIStatusError) -> BackendError:
    """Return the error for an answer with an error status."""
    name, status = f"upstream {upstream.name!r}", error.status_code
    if status in (401, 403):
        # Its text is left out: such texts quote the key.
        where = f"backends.openai.upstreams.{upstream.name}.api_key"
        return BackendError(f"{name} refused the server's key (status {status}); the operator sets it in {where}")
    text = blackened(upstream, _message(error))
    if status == 404:
        return InvalidRequestError(f"{name} does not know model {model!r} (status 404)")
    if status == 429:
        return UnavailableError(f"{name} takes no more requests now (status 429), try again later: {text}")
    if too_long := _too_long(error, text):
        return too_long
    if status in (400, 413, 415, 422):
        return InvalidRequestError(f"{name} refused the request (status {status}): {text}")
    kind = UnavailableError if status in (502, 503, 504) else BackendError
    return kind(f"{name} failed (status {status}): {text}")


def _too_long(error: openai.APIStatusError, text: str) -> PromptTooLongError | None:
    if error.status_code not in (400, 413, 422):
        return None
    body = error.body if isinstance(error.body, dict) else {}
    prompt, context = body.get("n_prompt_tokens"), body.get("n_ctx")
    if isinstance(prompt, int) and isinstance(context, int):
        return PromptTooLongError(prompt, context)
    for pattern in _TOO_LONG:
        if found := pattern.search(text):
            return PromptTooLongError(int(found["prompt"]), int(found["context"]))
    return None


def _message(error: openai.APIError) -> str:
    """Return the upstream's own words; a page of HTML has none that help."""
    body: object = error.body
    if isinstance(body, Mapping):
        # The package has taken the field "error" out. Some servers nest it once more, others have none.
        inner: Any = body.get("message") or body.get("detail") or body.get("error")
        if isinstance(inner, Mapping):
            inner = inner.get("message")
        if inner:
            return inner if isinstance(inner, str) else json.dumps(inner)
        return "no reason given"
    if isinstance(body, str) and not body.lstrip().startswith("<"):
        return body or "no reason given"
    return "no reason given" if body is None or isinstance(body, str) else str(error.message)
