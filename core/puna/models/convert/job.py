"""One conversion, in this process."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from puna.models.convert import families, lora, output, plan, vocabulary
from puna.models.convert.failure import ConversionError
from puna.models.convert.family import Pairs
from puna.models.convert.folder import Folder
from puna.models.convert.plan import Planned
from puna.models.paths import is_plain


def run(files: Mapping[str, str], target: str, base: Mapping[str, Any] | None = None) -> Iterator[tuple[int, int]]:
    """Convert `files` to a model, or with `base` to an adapter, and write it to `target`; yields bytes done and in all.

    Raises ConversionError and UnsupportedError.
    """
    with tempfile.TemporaryDirectory(prefix="puna-convert-") as name:
        folder = _linked(Path(name), files)
        architecture, pairs, tensors = _model(folder) if base is None else _adapter(folder, lora.Base(**base))
        yield from output.write(Path(target), architecture, pairs, tensors)


def _linked(path: Path, files: Mapping[str, str]) -> Folder:
    """Restore the names of uploaded blobs, as links in a folder."""
    for name, target in files.items():
        if not is_plain(name):
            raise ConversionError("file path must be relative")
        # Links cost nothing: the weights of a large model are never copied. The folder is private and is removed with
        # its links.
        link = path / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    return Folder(path)


def _model(folder: Folder) -> tuple[str, Pairs, list[Planned]]:
    family = families.family(folder)
    tensors = plan.plan(folder, family)
    # The embeddings decide the number of tokens, not the tokenizer: llama.cpp refuses a model in which the two differ.
    rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    # GGUF prefixes the keys of a model with its architecture; the keys of tokenizers have no such prefix.
    pairs = {f"{family.architecture}.{key}": value for key, value in family.metadata().items()}
    return family.architecture, pairs | vocabulary.metadata(folder, rows), tensors


def _adapter(folder: Folder, base: lora.Base) -> tuple[str, Pairs, list[Planned]]:
    return base.architecture, lora.metadata(folder, base), lora.plan(folder, base)
