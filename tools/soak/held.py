"""What the processes of a server hold: memory, file handles, sockets, threads."""

import os
from dataclasses import dataclass
from pathlib import Path

from tools.bench.servers import memory, tree


@dataclass(frozen=True, slots=True)
class Held:
    """What a process tree holds at one moment."""

    bytes: int
    handles: int
    sockets: int
    threads: int
    processes: int


def held(root: int) -> Held:
    """Count what a process and its descendants hold. One that ends meanwhile counts for nothing."""
    pids = list(tree(root))
    links = [link for pid in pids for link in _links(pid)]
    threads = 0
    for pid in pids:
        try:
            threads += len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 (names are enough)
        except OSError:
            continue
    sockets = sum(link.startswith("socket:") for link in links)
    return Held(memory(root), len(links), sockets, threads, len(pids))


def _links(pid: int) -> list[str]:
    found = []
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found.append(str(entry.readlink()))
            except OSError:
                continue
    except OSError:
        pass
    return found
