"""Rewriting GGUF files through a backend's quantizer, in a process of its own.

Ollama puts every uploaded model through llama.cpp's quantizer, which checks the file and gives it llama.cpp's own
layout. Doing the same gives the same bytes, hence the same digests. A backend plugin names the quantizer in
its manifest, since this package knows no plugin. The process ends with the server, is killed when the client
leaves, and a crash of the native library stays inside it (see `program`).
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from puna.errors import CreateFailedError
from puna.models import program
from puna.models.program import ProgramError

log = logging.getLogger(__name__)

COPY: Final = "COPY"
_LOGGED: Final = 2000
"""Characters of what a failed quantizer said that are logged, from the end."""

Rewrite = Callable[[Path, Path, str, Callable[[], bool]], Iterator[tuple[int, int]]]
"""Write a file anew: source, target, a file type or "COPY", and whether to stop.

Yields tensors done and in all; raises RewriteError, and CreateFailedError when it was stopped.
"""


class RewriteError(CreateFailedError):
    """The quantizer refused the file. The text is for the client; the log has everything that the quantizer said."""


def with_program(module: str) -> Rewrite:
    """Return a function that rewrites files with a quantizer, which is a module that `python -m` runs.

    Closing the iterator that it returns before its end kills the process.
    """
    return partial(_run, module)


def _run(
    module: str, source: Path, target: Path, kind: str, stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, int]]:
    try:
        yield from program.run(module, str(source), str(target), kind, stopped=stopped)
    except ProgramError as error:
        log.warning("the quantizer refused %s: %s", source.name, error.said[-_LOGGED:])
        raise RewriteError(f"llama-quantize failed: {error}{_reason(error.said, source)}") from error


def _reason(said: str, source: Path) -> str:
    """Return llama.cpp's reason without the file's place on this machine; empty if it gives none about the file."""
    reason = said.rpartition("failed to quantize: ")[2].partition("\n")[0] if "failed to quantize: " in said else ""
    # Clients must not see paths of the server.
    return f": {reason}".replace(str(source), source.name) if reason else ""
