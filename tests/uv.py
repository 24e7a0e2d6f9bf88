"""The uv of the Makefile, which stands in .venv and need not be on PATH."""

import sys
from pathlib import Path

_BESIDE = Path(sys.executable).with_name("uv")

UV = str(_BESIDE) if _BESIDE.exists() else "uv"
"""The program to run: the one beside this Python, or the one on PATH, as for an environment within .venv."""
