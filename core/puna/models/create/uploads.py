"""Uploaded files of a creation: the kind of each file, and the layer that it becomes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from puna.errors import BlobNotFoundError, CreateFailedError, InvalidCreateError, InvalidDigestError
from puna.gguf import reader as gguf
from puna.gguf.reader import GGUF
from puna.models.layout import media_types
from puna.models.layout.manifest import Layer
from puna.models.progress import JobPhase, TransferStep
from puna.models.storage.blobs import BlobStore, SharedLocks
from puna.models.storage.digest import plain

Kind = Literal["gguf", "safetensors"]

SHARD: Final = re.compile(r"(?P<prefix>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf")
_COMPATIBILITY: Final = ("a.", "mm.", "mtp.", "s.", "v.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComponent:
    """A layer that is a GGUF file. With `shards`, the file must first be joined from them."""

    layer: Layer
    header: GGUF
    path: Path
    uploaded: bool
    """Whether it was uploaded, and not inherited from another model."""
    created: bool = False
    """Whether the blob is new."""
    shards: tuple["Shard", ...] = ()

    @property
    def needs_rewriting(self) -> bool:
        """Whether the quantizer must rewrite it before it is stored."""
        if not self.uploaded or self.layer.media_type != media_types.MODEL:
            return False
        # Files with such tensors are kept as they are, as by Ollama.
        return not any(tensor.name.startswith(_COMPATIBILITY) for tensor in self.header.tensors)

    @property
    def lacks_projector_type(self) -> bool:
        """Whether it is a projector without a type, as old converters wrote them."""
        return (
            self.uploaded
            and self.layer.media_type == media_types.PROJECTOR
            and self.header.architecture == "clip"
            and self.header.get("has_vision_encoder") is True
            and not self.header.has("projector_type")
            and not self.header.has("vision.projector_type")
        )


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of a split model."""

    path: Path
    header: GGUF


class NotUploadedError(BlobNotFoundError):
    """A file of a new model has not been uploaded. `info` has its `digest`, and the `field` that names it."""


class Uploads:
    """Reads the uploaded files of one field of the request."""

    def __init__(self, blobs: BlobStore, shared_locks: SharedLocks, field: str) -> None:
        """`field` is the name of the field in a CreateModelRequest, for errors."""
        self._blobs = blobs
        self._shared_locks = shared_locks
        self._field = field

    def kind(self, files: Mapping[str, str]) -> Kind:
        """Return the format of the files, by their names or else by their content. Raises InvalidCreateError."""
        # Names decide first, so that the reader of that format reports a wrong name.
        if any(name.endswith(".gguf") for name in files):
            return "gguf"
        if any(name.endswith(".safetensors") for name in files):
            return "safetensors"
        for digest in files.values():
            try:
                if gguf.is_gguf(self._blobs.path(digest)):
                    return "gguf"
            except (OSError, InvalidDigestError):
                continue
        raise InvalidCreateError("unknown type")

    def are_gguf(self, files: Mapping[str, str]) -> bool:
        """Return whether all files are GGUF, by their content."""
        try:
            return bool(files) and all(gguf.is_gguf(self._blobs.path(digest)) for digest in files.values())
        except (OSError, InvalidDigestError):
            return False

    def opaque(self, files: Mapping[str, str]) -> Iterator[Layer]:
        """Yield a layer for each file that only a backend can read. Raises NotUploadedError."""
        # Sorted, so that the same files make the same model, in whatever order they were named.
        for name in sorted(files):
            path = self._blobs.path(files[name])
            self._shared_locks.add(files[name])
            if not path.is_file():
                text = f"the file {name!r} has not been uploaded: there is no blob {files[name]}"
                raise NotUploadedError(text, digest=plain(files[name]), field=self._field)
            self._blobs.touch(files[name])
            yield Layer(media_type=media_types.FILE, digest=files[name], size=path.stat().st_size, name=name)

    def read(self, files: Mapping[str, str], components: list[ModelComponent]) -> Iterator[TransferStep]:
        """Read GGUF files in the order of their names and append them to `components`."""
        shards: dict[str, list[tuple[str, Shard, ModelComponent]]] = {}
        for name in sorted(files):
            yield TransferStep(JobPhase.READING_FILES, "parsing GGUF")
            component = self._component(name, files[name])
            if _count(component.header) <= 1:
                components.append(component)
                continue
            prefix = _shard_prefix(name, component.header)
            if prefix not in shards:
                components.append(component)  # keeps the position; replaced below
            shards.setdefault(prefix, []).append((name, Shard(component.path, component.header), component))
        for group in shards.values():
            first_name, _, first = group[0]
            wanted = _count(first.header)
            if len(group) != wanted:
                raise CreateFailedError(f'split GGUF "{first_name}" has {len(group)} shards, expected {wanted}')
            components[components.index(first)] = _joined(first, tuple(shard for _, shard, _ in group))

    def _component(self, name: str, digest: str) -> ModelComponent:
        path = self._path(digest)
        try:
            if not gguf.is_gguf(path):
                raise InvalidCreateError("supplied file was not in GGUF format")
            # Locked before the header is read, so that no process removes the blob in between.
            self._shared_locks.add(digest)
            header = gguf.read(path)
            size = path.stat().st_size
        except FileNotFoundError:
            text = f"open {path}: no such file or directory"
            raise NotUploadedError(text, digest=plain(digest), field=self._field) from None
        self._blobs.touch(digest)
        layer = Layer(media_type=media_type_of(header), digest=digest, size=size, source=name)
        return ModelComponent(layer=layer, header=header, path=path, uploaded=True)

    def _path(self, digest: str) -> Path:
        try:
            return self._blobs.path(digest)
        except InvalidDigestError as error:
            error.info["field"] = self._field
            raise


def media_type_of(header: GGUF) -> str:
    """Return the media type of a file, as Ollama does: a model unless its header says otherwise."""
    kind = header.text("general.type")
    if kind == "adapter":
        return media_types.ADAPTER
    if kind in ("projector", "mmproj"):
        return media_types.PROJECTOR
    if header.integer("block_count") == 0:
        encodes = header.get("has_vision_encoder") is True or header.get("has_audio_encoder") is True
        if header.integer("vision.block_count") > 0 or (header.architecture == "clip" and encodes):
            return media_types.PROJECTOR
    return media_types.MODEL


def _count(header: GGUF) -> int:
    value = header.metadata.get("split.count")
    return value if isinstance(value, int) else 0


def _shard_prefix(name: str, header: GGUF) -> str:
    match = SHARD.fullmatch(name.rpartition("/")[2])
    if match is None:
        raise CreateFailedError(f'split GGUF "{name}" must use llama.cpp split filename pattern')
    index, count, stated = int(match["index"]) - 1, int(match["count"]), header.metadata.get("split.no")
    if count != _count(header):
        raise CreateFailedError(
            f'split GGUF "{name}" filename count {count} does not match metadata count {_count(header)}'
        )
    # The name gives the order of the shards and the header confirms it; where they differ the joined file would be
    # scrambled.
    if index != stated:
        raise CreateFailedError(f'split GGUF "{name}" filename index {index} does not match metadata index {stated}')
    return match["prefix"]


def _joined(first: ModelComponent, shards: tuple[Shard, ...]) -> ModelComponent:
    tensors = tuple(tensor for shard in shards for tensor in shard.header.tensors)
    return replace(first, header=replace(first.header, tensors=tensors), shards=shards)
