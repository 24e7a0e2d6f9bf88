"""What a gRPC client reads of an error: Puna's own words, and the variables of the error.

The texts of `puna.errors` are those of Ollama and of its engine, since clients of the REST API look for them. Some of
them are JSON inside a text, name programs that Puna does not run, or tell the reader to look at another server's log.
A gRPC client reads other words. The bridge gets the original text in a trailer; see `puna.rpc.status`.
"""

import json
import re
from typing import Any, Final

from puna.errors import (
    BackendCrashedError,
    CloudDisabledError,
    CreateFailedError,
    EmbeddingsUnsupportedError,
    LoadFailedError,
    PunaError,
    QueueFullError,
)
from puna.models.create.uploads import NotUploadedError

_WORDS: Final[dict[type[PunaError], str]] = {
    EmbeddingsUnsupportedError: "the model does not embed",
    QueueFullError: "too many requests wait; OLLAMA_MAX_QUEUE, or max_queue of the model, sets how many may",
    CloudDisabledError: "the model runs in Ollama's cloud, which this server does not call",
}
_TEXTS: Final = {
    "neither 'from' or 'files' was specified": "one of from_model, files, upstream and backend must be set",
}
"""Own words for errors whose class has several texts."""
_MISSING: Final = re.compile(r"open /.*: no such file or directory", re.DOTALL)
_BEGINNINGS: Final = (
    (
        "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
        "check ollama server logs for details",
        "the host process of the model has ended",
    ),
    ("llama-server process has terminated", "the host process has ended while it loaded the model"),
    (
        "timed out waiting for llama-server to start",
        "the model was not loaded in time; OLLAMA_LOAD_TIMEOUT sets how long",
    ),
)
_ENGINE: Final = '{"error":{'
"""The beginning of an error of Ollama's engine, which is JSON."""
_IMAGES: Final = ("image input is not supported", "Multimodal data provided")
_NUMBERS: Final = {"n_prompt_tokens": "prompt_tokens", "n_ctx": "context_length"}


def words(error: PunaError) -> str:
    """Return the text of an error for a gRPC client."""
    if (own := _WORDS.get(type(error))) is not None:
        return own
    text = str(error)
    if (own := _TEXTS.get(text)) is not None:
        return own
    # The paths of the store are no business of other machines.
    if isinstance(error, NotUploadedError):
        return f"the store has no blob {error.info['digest']}: upload it first"
    if isinstance(error, CreateFailedError) and _MISSING.fullmatch(text):
        return "a file of the model is missing in the store"
    if text.startswith(_ENGINE):
        return _of_engine(_parsed(text), text)
    if isinstance(error, LoadFailedError | BackendCrashedError):
        for theirs, ours in _BEGINNINGS:
            if text.startswith(theirs):
                return ours + text.removeprefix(theirs)
    return text


def variables(error: PunaError) -> dict[str, str]:
    """Return the variables of an error for ErrorInfo.metadata, such as "model" and "context_length"."""
    found = {name: str(value) for name, value in error.info.items()}
    text = str(error)
    if text.startswith(_ENGINE):
        fields = _parsed(text)
        found |= {ours: str(fields[theirs]) for theirs, ours in _NUMBERS.items() if theirs in fields}
    return found


def _parsed(text: str) -> dict[str, Any]:
    """Return the fields of an engine's error; none if the text only looks like one."""
    try:
        fields = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _of_engine(fields: dict[str, Any], text: str) -> str:
    message = str(fields.get("message", text))
    if message.startswith(_IMAGES):
        return "the request has images or sounds, and the model takes none"
    if "n_ctx" in fields:
        more = "at least " if "(at least " in message else ""
        tokens, room = fields.get("n_prompt_tokens"), fields["n_ctx"]
        return f"the prompt has {more}{tokens} tokens, and the context of the model has room for {room}"
    return message
