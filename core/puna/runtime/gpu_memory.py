"""The memory of this machine's GPUs.

A Ray cluster counts GPUs and does not know their memory. So this module runs on its machines, as a task of Ray. It
imports nothing but the standard library, and asks the drivers' own means.
"""

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

NVIDIA: Final = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
"""It prints the MiB of each GPU."""
AMD: Final = "card*/device/mem_info_vram_total"
DEVICES: Final = Path("/sys/class/drm")
ANSWER_SECONDS: Final = 10.0


def smallest_bytes(devices: Path = DEVICES) -> int:
    """Return the memory of the GPU that has the least; 0: there is none, or its driver does not tell. Blocks."""
    return min([*_nvidia(), *_amd(devices)], default=0)


def _nvidia() -> list[int]:
    # ValueError: a GPU that does not tell, such as one that shares the machine's memory, prints "[N/A]".
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        told = subprocess.run(NVIDIA, check=True, capture_output=True, text=True, timeout=ANSWER_SECONDS).stdout
        return [int(line) << 20 for line in told.splitlines() if line.strip()]
    return []


def _amd(devices: Path) -> list[int]:
    with suppress(OSError, ValueError):
        return [int(each.read_text()) for each in sorted(devices.glob(AMD))]
    return []
