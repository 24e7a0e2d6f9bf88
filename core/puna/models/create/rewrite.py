"""Rewriting GGUF files through llama.cpp's quantizer, in a process of its own.

The reference puts every uploaded model through it, which checks the file and gives it llama.cpp's own layout; doing the
same gives the same bytes, hence the same digests.
"""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from puna.errors import CreateFailedError
from puna.models import program
from puna.models.program import ProgramError

log = logging.getLogger(__name__)

COPY: Final = "COPY"
QUANTIZER: Final = "puna_llama_cpp.quantize"

Rewrite = Callable[[Path, Path, str, Callable[[], bool]], Iterator[tuple[int, int]]]
"""Write a file anew: source, target, a file type or "COPY", and whether to stop.

Yields tensors done and in all; raises RewriteError, and CreateFailedError when it was stopped.
"""


class RewriteError(CreateFailedError):
    """The quantizer refused the file. The text is for the client; the log has everything that llama.cpp said."""


def available() -> bool:
    """Whether llama.cpp is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


def rewrite(
    source: Path, target: Path, kind: str, stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, int]]:
    """Run the quantizer. Closing the iterator before its end kills it."""
    try:
        yield from program.run(QUANTIZER, str(source), str(target), kind, stopped=stopped)
    except ProgramError as error:
        log.warning("the quantizer refused %s: %s", source.name, error.said[-2000:])
        raise RewriteError(f"llama-quantize failed: {error}{_reason(error.said, source)}") from error


def _reason(said: str, source: Path) -> str:
    """Return what llama.cpp says of a file, without the file's place on this machine; empty: it says nothing of it."""
    reason = said.rpartition("failed to quantize: ")[2].partition("\n")[0] if "failed to quantize: " in said else ""
    return f": {reason}".replace(str(source), source.name) if reason else ""
