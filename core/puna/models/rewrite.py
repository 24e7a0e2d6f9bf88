"""Rewriting GGUF files through llama.cpp's quantizer, in a process of its own.

The reference puts every uploaded model through it, which checks the file and gives it llama.cpp's own layout; doing the
same gives the same bytes, hence the same digests.
"""

import importlib.util
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from puna.errors import CreateFailedError

log = logging.getLogger(__name__)

COPY: Final = "COPY"
QUANTIZER: Final = "puna_llama_cpp.quantize"
_PROGRESS: Final = re.compile(r"progress (\d+) (\d+)")

Rewrite = Callable[[Path, Path, str], Iterator[tuple[int, int]]]
"""Write a file anew: source, target, and a file type or "COPY". Yields tensors done and in all; raises RewriteError."""


class RewriteError(CreateFailedError):
    """The quantizer refused the file; the text is for the client, the cause is in the log."""


def available() -> bool:
    """Whether llama.cpp is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


def rewrite(source: Path, target: Path, kind: str) -> Iterator[tuple[int, int]]:
    """Run the quantizer. Closing the iterator before its end kills it."""
    command = [sys.executable, "-P", "-m", QUANTIZER, str(source), str(target), kind]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                if match := _PROGRESS.match(line):
                    yield int(match[1]), int(match[2])
            status = process.wait()
        finally:
            process.kill()
        if status != 0:
            errors.seek(0)
            log.warning("the quantizer refused %s: %s", source.name, errors.read().strip()[-2000:])
            outcome = f"exit status {status}" if status > 0 else f"signal: {-status}"
            raise RewriteError(f"llama-quantize failed: {outcome}")
