"""Names of models: [scheme://]host/namespace/model:tag, and the suffixes that say where a model runs."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from puna.errors import InvalidRequestError, ModelRequiredError
from puna.go.json import quote

DEFAULT_HOST: Final = "registry.ollama.ai"
DEFAULT_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"
DEFAULT_SCHEME: Final = "https"

MISSING: Final = "!MISSING!"  # stands for an empty part beside a separator; no valid part looks like it
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}", re.ASCII)
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}", re.ASCII)
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelName:
    """A name with all its parts, which may be invalid: see `is_valid`."""

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = DEFAULT_SCHEME

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Read a name from right to left. Missing parts get the defaults. Never raises."""
        rest, tag = text, ""
        # A colon before the last slash belongs to a port and not to a tag.
        if text.rfind(":") > text.rfind("/"):
            rest, tag = _cut(text, ":")
        if "/" not in rest:
            return cls(DEFAULT_HOST, DEFAULT_NAMESPACE, rest, tag or DEFAULT_TAG)
        rest, model = _cut(rest, "/")
        if "/" not in rest:
            return cls(DEFAULT_HOST, rest, model, tag or DEFAULT_TAG)
        rest, namespace = _cut(rest, "/")
        scheme, separator, host = rest.partition("://")
        if not separator:
            scheme, host = DEFAULT_SCHEME, rest
        return cls(host or DEFAULT_HOST, namespace, model, tag or DEFAULT_TAG, scheme or MISSING)

    @property
    def is_valid(self) -> bool:
        """Whether every part is a valid name."""
        return (
            _HOST.fullmatch(self.host) is not None
            and _NAMESPACE.fullmatch(self.namespace) is not None
            and _PART.fullmatch(self.model) is not None
            and _PART.fullmatch(self.tag) is not None
        )

    @property
    def full(self) -> str:
        """All four parts: registry.ollama.ai/library/m:latest."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def shortest(self) -> str:
        """The name without default parts. Model and tag are always included."""
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Host, namespace, model and tag: the path below `manifests`."""
        return self.host, self.namespace, self.model, self.tag

    @property
    def folded(self) -> tuple[str, str, str, str]:
        """The parts in lower case. Names with equal folded parts are the same."""
        return self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower()


def _cut(text: str, separator: str) -> tuple[str, str]:
    before, _, after = text.rpartition(separator)
    # An empty part beside a separator must make the name invalid and not take a default.
    return before or MISSING, after or MISSING


class Source(Enum):
    """The place where a client wants a model to run."""

    UNSPECIFIED = "unspecified"
    LOCAL = "local"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Reference:
    """A name as clients write it, which may end in :cloud or :local."""

    name: ModelName
    """The name without the suffix."""
    source: Source
    base: str
    """The text that `name` was read from."""


def parse_reference(text: str) -> Reference:
    """Read a reference, without the white space around it.

    Raises ModelRequiredError if it is empty, InvalidRequestError if it has two suffixes. The caller checks whether
    the name is valid, since the error texts differ.
    """
    stripped = text.strip()
    if not stripped:
        raise ModelRequiredError
    base, source = _suffix(stripped)
    if source is not Source.UNSPECIFIED and _suffix(base)[1] is not Source.UNSPECIFIED:
        raise InvalidRequestError(f"use either :local or :cloud, not both: {quote(stripped)}")
    return Reference(ModelName.parse(base), source, base)


def stub_name(reference: Reference) -> ModelName:
    """The name of a cloud model's stub in the store: m:20b-cloud, or m:cloud without a tag."""
    if reference.source is not Source.CLOUD:
        return reference.name
    # Only the last part has a tag: a colon before a slash is that of a port.
    tag = reference.base.rpartition("/")[2].partition(":")[2]
    return ModelName.parse(f"{reference.base}-cloud" if tag else f"{reference.base}:cloud")


def _suffix(text: str) -> tuple[str, Source]:
    head, colon, tail = text.rpartition(":")
    folded = tail.lower()
    if colon and folded == "cloud":
        return head, Source.CLOUD
    if colon and folded == "local":
        return head, Source.LOCAL
    # With a slash behind the colon the colon is that of a port.
    if colon and folded.endswith("-cloud") and "/" not in tail:
        return text[: -len("-cloud")], Source.CLOUD
    return text, Source.UNSPECIFIED
