"""The files from which `create` makes a model: GGUF files and safetensors of a folder, or all files as they are."""

import os
from collections.abc import Iterable
from pathlib import Path

from puna.cli.errors import CommandError
from puna.gguf import reader as gguf
from puna.models.opaque_files import files_of

# The first group that matches wins. A folder often holds one model in several formats.
PATTERNS = (
    ("model*.safetensors", "*/model*.safetensors"),
    ("consolidated*.safetensors",),
    ("adapter*.safetensors",),  # Ollama's command ignores adapters here
    ("pytorch_model*.bin",),
    ("consolidated*.pth",),
    ("*.gguf",),
    ("*.bin",),
)
# The converter needs the configuration and the tokenizer beside the weights.
COMPANIONS = ("*.json", "*/*.json", "chat_template.jinja", "tokenizer.model")


def expand(text: str, folder: Path) -> Path:
    """Return the path that a Modelfile names. `~` is expanded; a relative path begins at the Modelfile's folder."""
    path = Path(text).expanduser()
    return path if path.is_absolute() else folder / path


def model_files(path: Path) -> list[Path]:
    """Return the files of a model: the file itself, or the files of a folder. Raises CommandError."""
    if path.is_file():
        return [path if path.suffix == ".safetensors" else checked(path)]
    for patterns in PATTERNS:
        found = _inside(path, patterns)
        if found:
            return found if found[0].suffix == ".gguf" else found + _inside(path, COMPANIONS)
    raise CommandError("no Modelfile or safetensors files found")


def checked(path: Path) -> Path:
    """Return the path if it is a GGUF file. Raises CommandError."""
    if not gguf.is_gguf(path):
        raise CommandError(f"{path} is no GGUF file")
    return path


def named(paths: list[Path]) -> dict[str, Path]:
    """Return the files by the names of the request: base names, or names relative to their common folder."""
    if len(paths) == 1:
        return {paths[0].name: paths[0]}
    root = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    return {path.relative_to(root).as_posix(): path for path in paths}


def opaque_files(path: Path) -> dict[str, Path]:
    """Return the files that are stored as they are, by their names: see `puna.models.opaque_files`.

    Raises CommandError.
    """
    try:
        return files_of(path)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _inside(folder: Path, patterns: Iterable[str]) -> list[Path]:
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    for path in found:
        # A link in a downloaded folder must not upload files from elsewhere on this disk.
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CommandError(f"insecure path: {path}")
    return found
