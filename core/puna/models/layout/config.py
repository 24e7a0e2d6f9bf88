"""A model's configuration: the JSON blob that describes its files and how to run them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from puna.go import json as gojson
from puna.go import json_text

LONGEST_TEXT: Final = 500
"""Characters of the name of a backend, a format or a model at an upstream."""
_OWN: Final = ("backend_format", "backend_options")
_OPTION: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The draft model for speculative decoding."""

    model_format: str = ""
    architecture: str = ""
    tensor_prefix: str = ""
    config: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The configuration. Ollama ignores Puna's own keys: `upstream`, and those that begin with `backend`."""

    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] = ()
    model_type: str = ""
    """The parameter count as text, such as "134.52M"."""
    file_type: str = ""
    """Quantization, such as "Q8_0"."""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: tuple[str, ...] = ()
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    draft: Draft | None = None
    backend: str = ""
    """The backend that runs the model; empty: the server chooses one by the format."""
    backend_format: str = ""
    """The format of opaque files, such as "ctranslate2"; empty for GGUF files and for a model without files."""
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the backend that the model sets."""
    upstream: str = ""
    """The name of the model at the server that the backend forwards to; empty: the backend runs the model's files."""
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Keys that begin with `backend_` and that only a newer version knows. Models made of this one keep them."""

    @property
    def is_opaque(self) -> bool:
        """Whether only a backend can read the model: its files are opaque, or it has none."""
        # Every creation from GGUF files or safetensors sets model_format, also one that names a backend.
        return not self.model_format and not self.is_remote and bool(self.backend or self.backend_format)

    @property
    def format(self) -> str:
        """The format that a backend must serve to run the model; empty for an opaque model without files."""
        return self.backend_format if self.is_opaque else self.model_format or "gguf"

    @property
    def is_remote(self) -> bool:
        """Whether this is a stub of a model that runs elsewhere."""
        return bool(self.remote_host and self.remote_model)

    @property
    def is_gguf(self) -> bool:
        """Whether the model's files are GGUF."""
        return self.model_format in ("", "gguf") and not self.is_opaque


def loads(data: bytes) -> Config:
    """Read a configuration; keys that are not known and values of a wrong type are ignored.

    Raises ValueError if `data` is not a JSON object, or one of Puna's own keys has a text that no creation writes.
    """
    value = json_text.loads(data)
    if not isinstance(value, Mapping):
        raise ValueError("a configuration is a JSON object")
    draft, options = value.get("draft"), value.get("backend_options")
    # The names stand in Modelfiles, where a line break would begin another command.
    if isinstance(options, dict) and not all(_OPTION.fullmatch(name) for name in options):
        raise ValueError("backend_options has a key that is no name of an option")
    return Config(
        model_format=_text(value, "model_format"),
        model_family=_text(value, "model_family"),
        model_families=_texts(value, "model_families"),
        model_type=_text(value, "model_type"),
        file_type=_text(value, "file_type"),
        renderer=_text(value, "renderer"),
        parser=_text(value, "parser"),
        requires=_text(value, "requires"),
        remote_host=_text(value, "remote_host"),
        remote_model=_text(value, "remote_model"),
        capabilities=_texts(value, "capabilities"),
        context_length=_count(value, "context_length"),
        embedding_length=_count(value, "embedding_length"),
        base_name=_text(value, "base_name"),
        draft=_draft(draft) if isinstance(draft, Mapping) else None,
        backend=_printable(value, "backend"),
        backend_format=_printable(value, "backend_format"),
        backend_options=options if isinstance(options, dict) else {},
        upstream=_printable(value, "upstream"),
        unknown={key: each for key, each in value.items() if key.startswith("backend_") and key not in _OWN},
    )


def dumps(config: Config) -> bytes:
    """Write a configuration as Ollama does, down to the newline."""
    value: dict[str, Any] = {
        "model_format": config.model_format,
        "model_family": config.model_family,
        # Go writes a nil slice as null.
        "model_families": list(config.model_families) or None,
        "model_type": config.model_type,
        "file_type": config.file_type,
    }
    optional: dict[str, Any] = {
        "renderer": config.renderer,
        "parser": config.parser,
        "requires": config.requires,
        "remote_host": config.remote_host,
        "remote_model": config.remote_model,
        "capabilities": list(config.capabilities),
        "context_length": config.context_length,
        "embedding_length": config.embedding_length,
        "base_name": config.base_name,
        "draft": _plain_draft(config.draft) if config.draft else None,
        "backend": config.backend,
        "backend_format": config.backend_format,
        "backend_options": dict(config.backend_options),
        "upstream": config.upstream,
    }
    # These keys have omitempty in Go, the ones above have not.
    value |= {key: each for key, each in optional.items() if each} | dict(config.unknown)
    # Ollama writes these two for every model, wherever it runs.
    value |= {"architecture": "amd64", "os": "linux"}
    return gojson.dumps(value).encode() + b"\n"


def _draft(value: Mapping[str, Any]) -> Draft:
    return Draft(
        model_format=_text(value, "model_format"),
        architecture=_text(value, "architecture"),
        tensor_prefix=_text(value, "tensor_prefix"),
        config=_text(value, "config"),
    )


def _plain_draft(draft: Draft) -> dict[str, str]:
    pairs = {
        "model_format": draft.model_format,
        "architecture": draft.architecture,
        "tensor_prefix": draft.tensor_prefix,
        "config": draft.config,
    }
    return {key: each for key, each in pairs.items() if each}


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    return gojson.replace_lone_surrogates(text) if isinstance(text, str) else ""


def _printable(value: Mapping[str, Any], key: str) -> str:
    # A registry may send any text. Terminals show it, and Modelfiles have it on one line.
    text = _text(value, key)
    if len(text) > LONGEST_TEXT or not text.isprintable():
        raise ValueError(f"{key} must have at most {LONGEST_TEXT} characters, all printable")
    return text


def _texts(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    texts = value.get(key)
    return (
        tuple(gojson.replace_lone_surrogates(each) for each in texts if isinstance(each, str))
        if isinstance(texts, list)
        else ()
    )


def _count(value: Mapping[str, Any], key: str) -> int:
    return json_text.int64(value.get(key))
