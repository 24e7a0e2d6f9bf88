"""The operator's configuration of one upstream, checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import urlsplit

from puna.backend import InvalidRequestError
from puna_openai.dialects import DIALECTS, Dialect

NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""The form of an upstream's name. It has no slash, since the model's name follows after one."""
DEFAULT_DIALECT: Final = "compatible"
CAPABILITIES: Final = ("tools", "thinking", "vision", "audio", "embedding", "logprobs", "structured_output")
"""Capabilities that an operator may list. The default is all but audio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """An upstream: where it is, what it speaks, and how long it may take. Times are in seconds."""

    name: str
    base_url: str
    # Without repr, so that no error or log line that shows the configuration shows the key.
    api_key: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further headers of each request, such as an organisation's."""
    dialect: Dialect = DIALECTS[DEFAULT_DIALECT]
    connect_timeout: float = 10.0
    timeout: float = 300.0
    """Until the first event of an answer, queueing and prefill included."""
    stall_timeout: float = 60.0
    """Between two events of an answer."""
    list_timeout: float = 5.0
    """For the list of its models."""
    retries: int = 2
    """How often a request is sent again that failed before its first token."""
    parallel: int = 64
    """Requests per model that run at once; more wait in Puna's queue."""
    context_length: int = 0
    """Tokens; 0: unknown."""
    max_event_bytes: int = 16 << 20
    """Bytes of the longest event that is read."""
    max_response_bytes: int = 256 << 20
    """Bytes of the longest answer that is not a stream."""
    capabilities: frozenset[str] = frozenset(CAPABILITIES) - {"audio"}
    models: tuple[str, ...] = ("*",)
    """Patterns of the models that are listed."""
    lists: bool = True
    """Whether its models are listed at all."""

    def shows(self, model: str) -> bool:
        """Return whether a model is listed."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no error and no log line may contain."""
        found = [self.api_key, *self.headers.values()]
        # A word of two letters would blacken ordinary text.
        return tuple(text for text in found if len(text) > 3)


def upstreams(options: Mapping[str, object]) -> dict[str, Upstream]:
    """Return the upstreams of the backend's options, by name. Raises InvalidRequestError, which names the field."""
    table = options.get("upstreams") or {}
    if not isinstance(table, Mapping):
        raise InvalidRequestError("backends.openai.upstreams must be a table")
    return {str(name): _upstream(str(name), values) for name, values in table.items()}


def _upstream(name: str, values: object) -> Upstream:
    where = f"backends.openai.upstreams.{name}"
    if not NAME.fullmatch(name):
        raise InvalidRequestError(f"{where}: a name has letters, digits, '-' and '_' only")
    if not isinstance(values, Mapping):
        raise InvalidRequestError(f"{where} must be a table")
    known = dict(values)
    dialect = known.pop("dialect", DEFAULT_DIALECT)
    if dialect not in DIALECTS:
        raise InvalidRequestError(f"{where}.dialect must be one of {', '.join(DIALECTS)}")
    url = known.pop("base_url", "")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InvalidRequestError(f"{where}.base_url must be an address such as http://127.0.0.1:8000/v1")
    # The schema in backend.toml has checked the types and ranges. Lists arrive as lists, and the dataclass holds sets
    # and tuples.
    if "capabilities" in known:
        known["capabilities"] = frozenset(known["capabilities"])
    if "models" in known:
        known["models"] = tuple(known["models"])
    try:
        return Upstream(name=name, base_url=url, dialect=DIALECTS[dialect], **known)
    except TypeError as error:
        raise InvalidRequestError(f"{where} has an unknown entry: {error}") from None


def split(upstream: str, known: Mapping[str, Upstream]) -> tuple[Upstream, str]:
    """Return the upstream and the name of the model there, from NAME/MODEL. Raises InvalidRequestError."""
    name, slash, model = upstream.partition("/")
    if not slash or not model:
        raise InvalidRequestError(f"upstream {upstream!r} must have the form NAME/MODEL")
    if name not in known:
        configured = ", ".join(sorted(known)) or "none"
        raise InvalidRequestError(
            f"upstream {name!r} is not configured in backends.openai.upstreams (configured: {configured})"
        )
    return known[name], model
