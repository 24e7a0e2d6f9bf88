"""Manifests: which blobs a model is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from puna.go import json as gojson
from puna.go import json_text
from puna.models.layout import media_types

MOST_LAYERS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A blob and its media type."""

    media_type: str
    digest: str
    size: int
    source: str = ""
    """`from` in the file: the model that the layer was inherited from, or the name of the uploaded file."""
    name: str = ""

    def inherited(self, source: str) -> "Layer":
        """Return a copy of this layer with another source."""
        return replace(self, source=source)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The configuration's blob and the layers in the order in which they were added."""

    config: Layer
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes of all layers and the configuration; a digest listed twice counts twice."""
        # An untrusted manifest may have negative or huge sizes, which no answer may carry.
        return min(sum(max(layer.size, 0) for layer in (self.config, *self.layers)), json_text.LARGEST_INT)

    @property
    def digests(self) -> frozenset[str]:
        """Digests of all blobs."""
        return frozenset(layer.digest for layer in (self.config, *self.layers) if layer.digest)

    def of(self, *kinds: str) -> tuple[Layer, ...]:
        """Return the layers of these media types, in order."""
        return tuple(layer for layer in self.layers if layer.media_type in kinds)

    def last(self, *kinds: str) -> Layer | None:
        """Return the last layer of these media types."""
        found = self.of(*kinds)
        return found[-1] if found else None


def loads(data: bytes) -> Manifest:
    """Read a manifest. Sizes are clamped to 64 bits. Raises ValueError if `data` is not a manifest."""
    value = json_text.loads(data)
    if not isinstance(value, dict):
        raise ValueError("a manifest is a JSON object")
    layers = value.get("layers") or []
    if not isinstance(layers, list):
        raise ValueError("layers are a JSON array")
    # Every layer costs a lock and a look at the disk, so the number must have a bound.
    if len(layers) > MOST_LAYERS:
        raise ValueError(f"it has more than {MOST_LAYERS} layers")
    return Manifest(_layer(value.get("config") or {}), tuple(_layer(each) for each in layers))


def dumps(manifest: Manifest) -> bytes:
    """Write a manifest with the bytes that Ollama writes, because the digest of a manifest is that of its bytes."""
    value = {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "config": _plain(manifest.config),
        # Go writes a nil slice as null.
        "layers": [_plain(layer) for layer in manifest.layers] or None,
    }
    return gojson.dumps(value).encode() + b"\n"


def _layer(value: object) -> Layer:
    if not isinstance(value, Mapping):
        raise ValueError("a layer is a JSON object")
    return Layer(
        media_type=_text(value, "mediaType"),
        digest=_text(value, "digest"),
        size=_size(value.get("size")),
        source=_text(value, "from"),
        name=_text(value, "name"),
    )


def _size(value: object) -> int:
    return max(-json_text.LARGEST_INT, min(value, json_text.LARGEST_INT)) if type(value) is int else 0


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    return gojson.replace_lone_surrogates(text) if isinstance(text, str) else ""


def _plain(layer: Layer) -> dict[str, Any]:
    value: dict[str, Any] = {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
    if layer.source:
        value["from"] = layer.source
    if layer.name:
        value["name"] = layer.name
    return value
