"""Hatchling's build hook: compiles the kernels for ggml, where there is a compiler for x86-64 Linux.

Without them the llama.cpp plugin works all the same, more slowly, and a missing compiler is no error.
"""

import os
import platform
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("plugins/puna_ggml_kernels/native")
LIBRARY = SOURCE / "kernels.so"
DIGEST = SOURCE.with_name("sources.py")
# No -march: each function names the instructions it uses, so that any x86-64 processor can load the library and ask it.
# No contraction: the sources say which products are fused with an addition.
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-fPIC", "-shared"]


class KernelsHook(BuildHookInterface):
    """Adds native/kernels.so to wheels, and puts it beside its sources for editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 (hatchling's signature)
        """Compile; a wheel with the library in it is one for this platform."""
        # Source distributions hold the sources only.
        if self.target_name != "wheel" or sys.platform != "linux" or platform.machine() != "x86_64":
            return
        root = Path(self.root)
        sources = sorted(str(path) for path in (root / SOURCE).glob("*.c"))
        compiler = shlex.split(os.environ.get("CC", "cc"))
        # The loader compares it with the sources: a library of others may mirror other structs. The package itself
        # cannot be imported before it is installed.
        digest = runpy.run_path(str(root / DIGEST))["digest"](root / SOURCE)
        try:
            subprocess.run(
                [*compiler, *FLAGS, f'-DPUNA_SOURCES="{digest}"', *sources, "-lm", "-o", str(root / LIBRARY)],
                check=True,
            )
        # A machine without a compiler gets a package without kernels, and llama.cpp runs with ggml's own functions.
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"llama.cpp will run without the kernels of {SOURCE}: {error}")
            return
        build_data["artifacts"].append(f"/{LIBRARY}")
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-linux_x86_64"  # the library knows nothing of Python
