"""Makes this Puna importable for the Python of another environment.

A host in a plugin's environment must run the code of the server that starts it, because the two speak private parts of
their protocol. The folder that holds the package `puna` may also hold all libraries of the server, which must not
appear in the plugin's environment. So PYTHONPATH names a folder that holds a link to the package and nothing else. It
works alike for a wheel, an editable checkout and pipx, and the plugin's own child processes inherit it.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import puna

FOLDER: Final = "import"
_REPLACED: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def provide(scratch: Path) -> Path:
    """Return a folder, made in `scratch` if it is not there, with a link to the package `puna`. Raises OSError."""
    folder = scratch / FOLDER
    folder.mkdir(exist_ok=True)
    # Another host may have been started at the same time.
    with suppress(FileExistsError):
        (folder / "puna").symlink_to(Path(puna.__file__).resolve().parent)
    return folder


def environment(variables: Mapping[str, str], venv: Path, package_path: Path) -> dict[str, str]:
    """Return the variables for a process of a virtual environment, which finds `puna` in `package_path`.

    PYTHONPATH and PYTHONHOME of this process belong to its own environment and are not passed on.
    """
    kept = {name: value for name, value in variables.items() if name not in _REPLACED}
    programs = f"{venv / 'bin'}:{kept['PATH']}" if kept.get("PATH") else str(venv / "bin")
    return kept | {"PYTHONPATH": str(package_path), "VIRTUAL_ENV": str(venv), "PATH": programs}
