"""Counts the memory, file handles, sockets and threads of a server's processes."""

import os
from dataclasses import dataclass
from pathlib import Path

from tools.bench.servers import memory, tree


@dataclass(frozen=True, slots=True)
class Held:
    """The resources of a process tree at one moment."""

    bytes: int
    handles: int
    sockets: int
    threads: int
    processes: int


def held(root: int) -> Held:
    """Count the resources of a process and its descendants. A process that ends meanwhile is left out."""
    # Hosts are children of the server, and a leak may be in any of them.
    pids = list(tree(root))
    # Processes end and handles close between the listing and the reading, so every step below may fail.
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
