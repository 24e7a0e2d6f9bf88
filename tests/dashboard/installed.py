"""Installs the library that drives the browser, and finds the browser.

The library goes into a folder of its own below .venv, which the tests add to the path of modules.
"""

import hashlib
import shutil
import sys
from pathlib import Path

from tests.apps import installed
from tests.uv import UV

PINS = Path(__file__).with_name("requirements.txt")
KEPT = Path(sys.prefix) / "dashboard"
"""The folder of the library. It is inside .venv, which git ignores."""


def playwright():
    """Make the package `playwright` importable."""
    stamp, digest = KEPT / ".pins", hashlib.sha256(PINS.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(KEPT, ignore_errors=True)
        installed.run(UV, "pip", "install", "--quiet", "--python", sys.executable, "--target", KEPT, "-r", PINS)
        stamp.write_text(digest)
    # At the end, so that no module of the environment is replaced.
    if str(KEPT) not in sys.path:
        sys.path.append(str(KEPT))


def chromium():
    """Return the path of Chromium."""
    return installed.debian("chromium", "chromium", "fonts-dejavu-core")
