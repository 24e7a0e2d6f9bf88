"""Planning the tensors of a GGUF file: names, types and shapes, checked for completeness before any value is read."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGMLQuantizationType, TensorNameMap, get_tensor_name_map

from puna.models.convert.failure import ConversionError
from puna.models.convert.family import Family, Shape
from puna.models.convert.folder import Folder
from puna.models.convert.safetensors import Array, Weights

F32: Final = GGMLQuantizationType.F32
F16: Final = GGMLQuantizationType.F16
BF16: Final = GGMLQuantizationType.BF16
_BYTES: Final = {F32: 4, F16: 2, BF16: 2}
# Ollama writes the same types, so that a quantizer reads equal input from both. BF16 stays, since F16 has a smaller
# range.
_KINDS: Final = {"F64": F16, "F32": F16, "F16": F16, "BF16": BF16}
"""The type that matrices are written in, by the type that they are stored in."""
_PRECISE: Final = ("ffn_gate_inp.weight", "token_types.weight")
"""Matrices that are written as F32."""
_EXPERT: Final = re.compile(r"(?P<before>.+\.experts)\.(?P<number>\d+)(?P<after>\..+)")
_SUFFIXES: Final = (".weight", ".bias")


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor to write."""

    name: str
    shape: tuple[int, ...]
    """Lengths, outermost first."""
    kind: GGMLQuantizationType
    make: Callable[[], Array]
    """Reads the values. It is called when the tensor is written, so that only one tensor is in memory."""

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * _BYTES[self.kind]


def plan(folder: Folder, family: Family) -> list[Planned]:
    """Return all tensors by name. Raises ConversionError for an unknown or missing tensor or a wrong shape."""
    wanted = family.shapes()
    found: dict[str, Planned] = {}
    for target, parts in _targets(folder, family).items():
        shape = parts[0].shape if len(parts) == 1 else (len(parts), *parts[0].shape)
        for part in parts:
            # np.stack would promote mixed types silently, and the file's header would no longer describe the data.
            if (part.kind, part.shape) != (parts[0].kind, parts[0].shape):
                raise ConversionError(f'"{part.name}" is {part.kind} of shape {list(part.shape)}, unlike its siblings')
        _check(parts[0].name, shape, wanted.get(target))
        kind = kind_of(target, parts[0], len(shape))
        found[target] = Planned(target, shape, kind, partial(_made, target, parts, kind, family))
    # The loop above sees only tensors that exist. llama.cpp would refuse such a model at its first load, long after the
    # creation.
    for target in wanted:
        if target not in found:
            raise ConversionError(f'there is nothing for the tensor "{target}"')
    for target, values in family.added().items():
        found[target] = Planned(target, values.shape, F32, values.copy)
    return [found[name] for name in sorted(found)]


def names(architecture: str, blocks: int) -> TensorNameMap:
    """Return gguf's map of tensor names. Raises KeyError for an unknown architecture."""
    numbers = {name: number for number, name in MODEL_ARCH_NAMES.items()}
    return get_tensor_name_map(MODEL_ARCH(numbers[architecture]), blocks)


def kind_of(target: str, weights: Weights, dimensions: int) -> GGMLQuantizationType:
    """Return the type to write. Tensors of one dimension are small and stay F32. Raises ConversionError."""
    if weights.kind not in _KINDS:
        raise ConversionError(f'"{weights.name}" is {weights.kind}, which are no weights')
    return F32 if dimensions < 2 or target.endswith(_PRECISE) else _KINDS[weights.kind]


def in_kind(weights: Weights, kind: GGMLQuantizationType) -> Array:
    """Return values in the type to write. BF16 values are the integers of their bits."""
    if kind == BF16:
        return weights.values
    return weights.float32() if kind == F32 else weights.values.astype(np.float16)


def _targets(folder: Folder, family: Family) -> dict[str, list[Weights]]:
    """Return the sources of each tensor: the tensor itself, or the experts in their order."""
    # gguf maps the names of each architecture's checkpoints. Experts are stored one by one on hubs, and as one tensor
    # in GGUF.
    known = names(family.architecture, family.blocks)
    found: dict[str, dict[int, Weights]] = {}
    for name, weights in folder.weights().items():
        source = family.source(name)
        if source is None:
            continue
        expert = _EXPERT.fullmatch(source)
        target = known.get_name(expert["before"] + expert["after"] if expert else source, _SUFFIXES)
        if target is None:
            raise ConversionError(f'unknown tensor "{name}"')
        parts = found.setdefault(target, {})
        number = int(expert["number"]) if expert else 0
        if number in parts:
            raise ConversionError(f'"{name}" and "{parts[number].name}" are the same tensor')
        parts[number] = weights
    # A missing expert shows in the check of the shape: its first length is the number of experts in config.json.
    return {target: [parts[number] for number in sorted(parts)] for target, parts in found.items()}


def _check(name: str, shape: tuple[int, ...], wanted: Shape | None) -> None:
    if wanted is None:
        return
    if len(shape) != len(wanted) or any(there not in (None, here) for here, there in zip(shape, wanted, strict=True)):
        expected = [each if each is not None else "any" for each in wanted]
        raise ConversionError(f'"{name}" has the shape {list(shape)}, and config.json says {expected}')


def _made(target: str, parts: list[Weights], kind: GGMLQuantizationType, family: Family) -> Array:
    if len(parts) == 1:
        return family.edited(target, in_kind(parts[0], kind))
    return np.stack([in_kind(part, kind) for part in parts])
