"""Writing a GGUF file, tensor by tensor."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from gguf import GGUFValueType, GGUFWriter

from puna.models.convert.family import Pairs, Value
from puna.models.convert.plan import Planned

MOSTLY_F16: Final = 1
"""The file type that Ollama stores for every conversion, even if matrices are BF16."""


def write(target: Path, architecture: str, pairs: Pairs, tensors: Sequence[Planned]) -> Iterator[tuple[int, int]]:
    """Write a file; yields bytes done and in all."""
    writer = GGUFWriter(target, architecture)
    writer.add_file_type(MOSTLY_F16)
    for key, value in pairs.items():
        _add(writer, key, value)
    for tensor in tensors:
        # The data type is not used, since the GGUF type follows it. It must not be uint8, for which gguf would take the
        # shape for bytes.
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.uint16), tensor.size, tensor.kind)
    done, total = 0, sum(tensor.size for tensor in tensors)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(tensor.make())
            done += tensor.size
            yield done, total
    finally:
        writer.close()


def _add(writer: GGUFWriter, key: str, value: Value) -> None:
    match value:
        # bool comes first: it is a subclass of int in Python.
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_key_value(key, value, GGUFValueType.STRING)  # add_string would drop an empty value
        case _:
            writer.add_array(key, value)
