"""Reads the list of variables in model.bin, without their values.

The file begins with the version of the layout, the name of the architecture, and its revision. Then each variable
follows: name, rank, dimensions, type, length in bytes, and the values, which are skipped. Numbers are little-endian, a
name has its length in front and a zero byte behind. The file is not trusted: a length that leads beyond its end is an
error.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from puna.backend import InvalidRequestError

DECODER: Final = "TransformerDecoderSpec"
ENCODER: Final = "TransformerEncoderSpec"
VERSIONS: Final = range(4, 100)
"""Versions of the layout that is read here. Older ones give the size of a value instead of its type."""
MAX_VARIABLES: Final = 100_000
EMBEDDINGS: Final = ("decoder/embeddings/weight", "encoder/embeddings_0/weight", "encoder/embeddings/weight")
POSITIONS: Final = ("decoder/position_encodings/encodings", "encoder/position_encodings/encodings")
FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """The architecture of a model, and the shapes of its variables."""

    architecture: str
    shapes: dict[str, tuple[int, ...]]
    file_bytes: int

    @property
    def positions(self) -> int:
        """Positions that the model has learned, in tokens; 0: it computes positions and has no such bound."""
        return next((self.shapes[name][0] for name in POSITIONS if self.shapes.get(name)), 0)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens for which the model has embeddings."""
        return next((self.shapes[name][0] for name in EMBEDDINGS if self.shapes.get(name)), 0)

    def cache_bytes(self, context_length: int) -> int:
        """Return the size of the KV cache of one sequence that fills the context."""
        width = 0
        for name, shape in self.shapes.items():
            if name.endswith("/self_attention/linear_0/weight") and len(shape) == 2:
                # The first layer computes queries, keys and values, the second takes as many numbers as there are
                # queries.
                queries = self.shapes.get(name.replace("linear_0", "linear_1"), (0, shape[0]))[-1]
                width += max(shape[0] - queries, 0)
        return width * context_length * FLOAT_BYTES


def read(path: Path) -> Weights:
    """Read the header of each variable. Raises InvalidRequestError if the file is not a model of CTranslate2."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (version,) = _numbers(file, "<I")
            if version not in VERSIONS:
                raise InvalidRequestError("model.bin is not a model of CTranslate2")
            architecture = _name(file)
            _, count = _numbers(file, "<II")
            if count > MAX_VARIABLES:
                raise InvalidRequestError("model.bin lists too many variables")
            shapes = dict(_variable(file, size) for _ in range(count))
    except (struct.error, UnicodeDecodeError) as error:
        raise InvalidRequestError("model.bin is damaged or not a model of CTranslate2") from error
    return Weights(architecture, shapes, size)


def _variable(file: BinaryIO, size: int) -> tuple[str, tuple[int, ...]]:
    name = _name(file)
    (rank,) = _numbers(file, "<B")
    shape = _numbers(file, f"<{rank}I")
    _, length = _numbers(file, "<BI")
    if file.seek(length, 1) > size:
        raise InvalidRequestError("model.bin is cut off")
    return name, shape


def _name(file: BinaryIO) -> str:
    (length,) = _numbers(file, "<H")
    return file.read(length).rstrip(b"\0").decode()


def _numbers(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
