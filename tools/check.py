"""Everything that can be checked without running the server, in the order that fails fastest.

    python tools/check.py [STEP...]

Without names of steps all run.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
STEPS = {
    "format": ["ruff", "format", "--check", "--quiet", "."],
    "lint": ["ruff", "check", "--quiet", "."],
    "layers": ["lint-imports"],
    "variables": ["python", "tools/list_variables.py", "--check"],
    "reasons": ["python", "tools/list_reasons.py", "--check"],
    "proto": ["python", "tools/gen_proto.py", "--check"],
    "types": ["mypy"],
}


def main(names: Sequence[str]) -> int:
    """Run the steps of these names, or all; stop at the first that fails."""
    # Before the first step, so that a misspelled name is not noticed after a minute of checks.
    if unknown := set(names) - set(STEPS):
        print(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
        return 2
    # protoc finds its plugins by PATH, and they must be those of this environment.
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for name in names or STEPS:
        command = STEPS[name]
        start = time.perf_counter()
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=ROOT,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        # Flushed, so that a step's line stands in a log before the next step begins.
        print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {name:9} {time.perf_counter() - start:5.1f} s", flush=True)
        if done.returncode:
            print(done.stdout + done.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
