"""Which tests need a processor that the kernels run on."""

import os
import sys
from pathlib import Path

import pytest

NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma"}


def able():
    """Whether the processor has what the kernels need, by the kernel's account."""
    return set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()) >= NEEDED


needs_processor = pytest.mark.skipif(
    not (sys.platform == "linux" and able()) and os.environ.get("CI") != "true",  # where nothing is skipped
    reason="ggml's own functions are all there is on this processor",
)
