"""The details of a model: format, family, size and quantization."""

from dataclasses import dataclass, replace
from datetime import datetime

from puna.gguf.reader import GGUF
from puna.gguf.types import UNKNOWN
from puna.model_name import ModelName
from puna.models.facts.numerals import parameter_size
from puna.models.layout.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """Format, family and size of a model."""

    parent_model: str = ""
    format: str = ""
    family: str = ""
    families: tuple[str, ...] | None = None
    parameter_size: str = ""
    quantization_level: str = ""
    context_length: int = 0
    """Tokens of context that it was trained for."""
    embedding_length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """One entry of a list."""

    name: ModelName
    digest: str
    """SHA-256 of the manifest, 64 hexadecimal digits."""
    size: int
    """Bytes of all layers and the configuration."""
    modified_ns: int
    """When the manifest was written, in nanoseconds since 1970."""
    details: Details
    capabilities: tuple[str, ...]
    remote_host: str = ""
    remote_model: str = ""
    backend: str = ""
    """The backend that the model names; empty: the server chooses one by the format."""
    serving_backend: str = ""
    """The backend that would serve the model now; empty: none does."""

    is_offered: bool = False
    """Whether a backend offers the model, so that the store does not have it."""

    @property
    def order(self) -> tuple[int | str, ...]:
        """The sort key of lists: the newest model of the store comes first, models that backends offer come last."""
        name = self.name.shortest
        if self.is_offered:
            return 1, name.lower(), name
        # The name decides within a second, so that the order does not depend on the file system.
        return 0, -(self.modified_ns // 1_000_000_000), *self.name.folded, name

    @property
    def modified(self) -> datetime:
        """When the manifest was written, in local time, to the microsecond."""
        return local_time(self.modified_ns)


def local_time(nanoseconds: int) -> datetime:
    """Return a moment in local time, to the microsecond."""
    return (
        datetime.fromtimestamp(nanoseconds // 1_000_000_000)
        .astimezone()
        # Integers are exact. A float of the nanoseconds since 1970 is off by up to 128 of them.
        .replace(microsecond=nanoseconds % 1_000_000_000 // 1000)
    )


def describe(config: Config, parent: str, *headers: GGUF | None) -> Details:
    """Return the details from the configuration. Missing ones come from the headers, of which the first that has a
    value counts.
    """
    level = config.file_type
    if level in ("", UNKNOWN):
        # The header that a list reads ends before the vocabulary and may lack the file type, so a complete one may
        # follow it.
        known = (header.file_type for header in headers if header is not None and header.file_type != UNKNOWN)
        level = next(known, level)
    header = headers[0] if headers else None
    context = config.context_length or (header.integer("context_length") if header else 0)
    embedding = config.embedding_length or (header.integer("embedding_length") if header else 0)
    return Details(
        parent_model=parent,
        format=config.backend_format or config.model_format,
        family=config.model_family,
        families=config.model_families or None,
        parameter_size=config.model_type,
        quantization_level=level,
        context_length=_signed(context),
        embedding_length=_signed(embedding),
    )


def completed(config: Config, header: GGUF) -> Config:
    """Fill the empty fields of a configuration from a model file.

    The type of an F32 file is stored as "unknown", as Ollama does, so that digests agree. `describe` shows F32.
    """
    return replace(
        config,
        model_format=config.model_format or "gguf",
        model_family=config.model_family or header.architecture,
        model_families=(*config.model_families, header.architecture),
        model_type=config.model_type or parameter_size(header.parameter_count),
        file_type=config.file_type or header.written_file_type,
    )


def _signed(value: int) -> int:
    """Wrap a number to a signed integer of 64 bits, as Go does."""
    return value - (1 << 64) if value >= 1 << 63 else value
