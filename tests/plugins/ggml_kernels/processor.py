"""Whether the tests of the kernels apply on this machine."""

import os
import sys
from pathlib import Path

NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma"}
"""The instruction sets that the kernels use, by their names in /proc/cpuinfo."""


def able():
    """Say whether Linux reports the instruction sets that the kernels use."""
    return (
        sys.platform == "linux"
        and set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()) >= NEEDED
    )


def not_applicable():
    """Return why the tests marked `kernels` do not apply here; empty if they do.

    A library that was not built, or that does not fit llama.cpp, is no reason: the tests fail then.
    """
    if os.environ.get("PUNA_KERNELS") == "0":
        return "PUNA_KERNELS is 0"
    return "" if able() else "the processor has no AVX-512 VNNI"
