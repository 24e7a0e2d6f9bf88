"""How much memory the machine has left, or the container that we are in."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")
"""Where a container sees its own limits (cgroup v2)."""


def free_bytes(meminfo: Path = MEMINFO, container: Path = CONTAINER) -> int:
    """Return the bytes that can be taken without swapping; 0 where that cannot be told."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return 0
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    try:
        limit = int((container / "memory.max").read_text())  # "max" where there is none
        cached = next(
            int(line.split()[1])
            for line in (container / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
        used = int((container / "memory.current").read_text()) - cached
    except (OSError, ValueError, StopIteration):
        return free
    return max(min(free, limit - used), 1)
