"""A creation request, and the checks that need nothing but the request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from puna.errors import InvalidCreateError, InvalidDigestError, InvalidModelNameError
from puna.messages import Message
from puna.model_name import ModelName
from puna.models.paths import is_plain

_LONGEST_PATH: Final = 1024
_LONGEST_PART: Final = 255
"""Bytes of a path, and of each part of a path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """The parts that a model is created from. Empty fields were not given."""

    name: str
    base: str = ""
    """The model to start from (`from`)."""
    files: Mapping[str, str] | None = None
    """Digests of uploaded files by name. They count only without a base."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    draft_files: Mapping[str, str] = field(default_factory=dict)
    template: str = ""
    system: str = ""
    licenses: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON values. Integers and floats are not distinguished."""
    messages: tuple[Message, ...] = ()
    quantize: str = ""
    draft_quantize: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of the configuration."""
    backend: str = ""
    """The backend that runs the model; empty: the server chooses one by the format."""
    format: str = ""
    """The format of `files`; empty: GGUF, or the only other format that the backend serves."""
    upstream: str = ""
    """The model's name at the server that the backend forwards to. Such a model has no files."""
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    """Options that the model sets for its backend."""
    as_is: bool = False
    """Whether model files are stored unchanged and not rewritten by the quantizer."""


def check(request: CreateRequest) -> ModelName:
    """Check the request alone and return its name. Raises InvalidCreateError and its subclasses, in Ollama's order."""
    for names in (request.files or {}, request.draft_files):
        if not all(is_plain(name) for name in names):
            raise InvalidCreateError("file path must be relative")
    for digests in (request.files or {}, request.adapters, request.draft_files):
        if not all(is_writable(name) for name in digests):
            raise InvalidCreateError("a file's name is too long or has a zero byte in it")
        if not all(digests.values()):
            raise InvalidDigestError
    if request.draft_quantize and not request.draft_files:
        raise InvalidCreateError("--draft-quantize requires a DRAFT model")
    name = ModelName.parse(request.name)
    if not name.is_valid:
        raise InvalidModelNameError
    return name


def is_writable(name: str) -> bool:
    """Return whether file systems accept a path. A conversion restores the names of uploaded files."""
    # File systems count bytes and not characters.
    raw = name.encode("utf-8", "replace")
    return b"\0" not in raw and len(raw) <= _LONGEST_PATH and max(map(len, raw.split(b"/"))) <= _LONGEST_PART
