"""How much memory is free: of the machine, or of the container in which this process runs."""

from pathlib import Path
from typing import Final

MAX_FILE_SHARE: Final = 0.8
"""The part of the free memory that a model's files may take; its KV cache and buffers come on top."""
MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")
"""Folder in which a container sees its own limits (cgroup v2)."""


def free_bytes(meminfo: Path = MEMINFO, container: Path = CONTAINER) -> int:
    """Return the bytes that can be allocated without swapping; 0 if the system does not say."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return 0
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    try:
        limit = int((container / "memory.max").read_text())  # the text is "max" where there is no limit
        cached = next(
            int(line.split()[1])
            for line in (container / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
        # The page cache counts as used memory of the container, but the kernel drops it when memory is needed.
        used = int((container / "memory.current").read_text()) - cached
    # ValueError: "max" is no number. Outside of a container, or with cgroup v1, the files are missing.
    except (OSError, ValueError, StopIteration):
        return free
    # At least 1, because 0 means that the system does not say.
    return max(min(free, limit - used), 1)
