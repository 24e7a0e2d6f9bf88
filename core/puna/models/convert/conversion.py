"""The server's side of a conversion: starts the process, and turns its exit status into errors for the client."""

import importlib.util
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from puna.errors import CreateFailedError, InvalidCreateError
from puna.gguf.reader import GGUF
from puna.models import program
from puna.models.convert.failure import ConversionError, UnsupportedError
from puna.models.program import ProgramError

log = logging.getLogger(__name__)

CONVERTER: Final = "puna.models.convert"
MISSING: Final = (
    "converting safetensors needs the gguf library, which is not installed: install Puna with its extra convert "
    '(pip install "puna[convert]"), or convert to GGUF first'
)
_NEEDED: Final = ("gguf", "numpy")


def convert(
    files: Mapping[str, Path], target: Path, base: GGUF | None = None, stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, int]]:
    """Convert files, given by their names, to a model, or to an adapter of `base`; yields bytes done and in all.

    Closing the iterator before its end kills the program, as `stopped` does. Raises InvalidCreateError for files that
    are wrong, and CreateFailedError where the kind of model is not known, the library is missing, or the program dies.
    """
    # The modules are looked up but not imported: the server's process never pays for numpy.
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise CreateFailedError(MISSING)
    job: dict[str, object] = {"files": {name: str(path) for name, path in files.items()}, "target": str(target)}
    if base is not None:
        job["base"] = {
            "architecture": base.architecture,
            "blocks": base.integer("block_count"),
            "heads": base.integer("attention.head_count"),
            "kv_heads": base.integer("attention.head_count_kv"),
        }
    try:
        yield from program.run(CONVERTER, given=json.dumps(job), stopped=stopped)
    except ProgramError as error:
        # The program writes its own error as the last line; Python's warnings may stand before it.
        said = error.said.rpartition("\n")[2]
        # Only the two statuses of `failure` are errors of the files. Any other status is a fault or a killed process,
        # whose text may hold paths of the server, so it goes to the log and not to the client.
        if error.status == ConversionError.status:
            raise InvalidCreateError(said) from error
        if error.status == UnsupportedError.status:
            raise CreateFailedError(said) from error
        log.warning("the converter failed: %s", error.said[-2000:])
        raise CreateFailedError(f"converting failed: {error}") from error
