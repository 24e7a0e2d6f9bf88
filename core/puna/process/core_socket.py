"""The Unix socket on which a core serves programs of its own account, beside its port.

It lies in a folder that belongs to the account and that no other account may enter, so a caller on the socket needs no
key: $XDG_RUNTIME_DIR, or a folder among the temporary files. The name holds the port, by which commands on the same
machine find the socket of the server that they mean.
"""

import os
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "puna.core-"


def prepared(port: int) -> Path | None:
    """Return the path for the core on this port, in a folder that exists. None: there is no safe folder for it."""
    path = _path(port)
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if _is_private(path.parent):
            _sweep(path.parent)
            return path
    return None


def _sweep(folder: Path) -> None:
    """Remove the sockets of servers that were killed."""
    for each in folder.glob(f"{_PREFIX}*.sock"):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(os.fspath(each))
            except ConnectionRefusedError:
                each.unlink()


def found(port: int) -> Path | None:
    """Return the path of the socket on which the core on this port serves; None if it serves on none."""
    path = _path(port)
    with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        if _is_private(path.parent):
            # A server that was killed leaves the file behind.
            probe.connect(os.fspath(path))
            return path
    return None


def _path(port: int) -> Path:
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    # Anyone may make a folder of this name in /tmp first. `_is_private` refuses such a folder.
    folder = runtime if runtime.is_absolute() else Path(tempfile.gettempdir()) / f"puna-{os.getuid()}"
    return folder / f"{_PREFIX}{port}.sock"


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
