"""Makes a tiny model of each architecture that llama.cpp has, runs it in many ways, and prints a table.

    python -m tools.architectures                  all of them: a quarter of an hour on one core
    python -m tools.architectures gemma4 qwen35    these

The exit status is 1 if a model ends the process or writes another text than it should; a refusal is no fault.
`make.py` says how the models come about, `checks.py` what is compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.architectures.checks import MOST, MOST_ROUNDING
from tools.architectures.hyperparameters import architectures

ROOT = Path(__file__).parents[2]
SECONDS = 180
"""How long the checks of one model may take."""


REFUSALS = ("InvalidRequestError", "UnsupportedError")
"""Errors by which a backend refuses a model."""


@dataclass(frozen=True)
class Row:
    """What came out of one model."""

    name: str
    verdict: str
    """Empty: nothing is wrong."""
    facts: Mapping[str, bool]
    faulty: bool = False


def models(folder: Path, architecture: str) -> Iterator[tuple[Path, str]]:
    """Make the dense model of an architecture and the one with experts. Yield each, or why there is none."""
    made: list[str] = []
    for experts in (False, True):
        path = folder / f"{architecture}{'-experts' if experts else ''}.gguf"
        arguments = [str(path), architecture, *(["--experts"] if experts else [])]
        done = python("tools.architectures.make", *arguments)
        reason = done.stderr.strip().rpartition("\n")[2]
        # An architecture without experts ignores their keys, and one with experts has no other model.
        if done.returncode == 0 and done.stdout not in made:
            made.append(done.stdout)
            yield path, ""
    if not made:
        yield folder / f"{architecture}.gguf", reason


def python(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a process of its own, which llama.cpp may end."""
    command = [sys.executable, "-m", module, *arguments]
    # Without a debugger's backtrace, ggml's reason for an abort is the last line.
    environment = os.environ | {"GGML_NO_BACKTRACE": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def checked(path: Path) -> Row:
    """Run the checks of a model."""
    quantized = path.with_suffix(".q4")
    if python("puna_llama_cpp.quantize", str(path), str(quantized), "Q4_K_M").returncode:
        quantized.write_bytes(b"")
    given = [str(path), *([str(quantized)] if quantized.stat().st_size else [])]
    try:
        done = python("tools.architectures.checks", *given)
    except subprocess.TimeoutExpired:
        return Row(path.stem, f"not done after {SECONDS} s", {}, faulty=True)
    finally:
        quantized.unlink()
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        return Row(path.stem, f"ended the process: {reason}", {}, faulty=True)
    found = json.loads(done.stdout)
    differences = found["differences"].items()
    wrong = [f"{name}: {value:.4f}" for name, value in differences if not value <= MOST.get(name, MOST_ROUNDING)]
    error = found["error"]
    # A refusal has a text for users. Any other error is a fault of a model or of a check.
    faulty = bool(wrong) or (bool(error) and not error.startswith(REFUSALS))
    return Row(path.stem, ", ".join([*wrong, error]).strip(", "), found["facts"], faulty=faulty)


def main() -> int:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="architectures; all without")
    names = parser.parse_args().names or architectures()
    columns = ("parallel", "shares", "shifts", "restores", "drafts")
    print(f"| model | result | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    failed = False
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for path, reason in models(Path(folder), name):
                row = Row(path.stem, f"not made: {reason}", {}) if reason else checked(path)
                path.unlink(missing_ok=True)
                failed |= row.faulty
                marks = " | ".join({True: "yes", False: "no"}.get(row.facts.get(each), "") for each in columns)
                print(f"| {row.name} | {row.verdict or 'ok'} | {marks} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
